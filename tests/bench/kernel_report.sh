#!/usr/bin/env bash
# What each CUDA kernel takes of a multiprocessor, as ptxas tells: registers a thread, static shared memory, stack, and what was
# spilled (stores + loads), all but the registers in bytes. Compiles kernels/cuda anew, as the build has it, for one kind of GPU.
#   tests/bench/kernel_report.sh [--table] [FILE...]   of kernels/cuda; default: all
#     --table         a row a kernel, in Markdown, over its instances: from the least registers to the most, the most of the rest
#   SMOE_ARCH=90      compute capability without its point
#   SMOE_BUILD=build/release
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../launch/common.sh"

arch=${SMOE_ARCH:-90}
commands=${SMOE_BUILD:-$root/build/release}/compile_commands.json
[ -f "$commands" ] || die "no $commands; configure with cmake --preset release, or set SMOE_BUILD"

python3 - "$commands" "$arch" "$@" <<'END'
import json, os, re, shlex, subprocess, sys, tempfile

commands, arch, names = sys.argv[1], sys.argv[2], sys.argv[3:]
as_table = "--table" in names
wanted = {os.path.basename(name) for name in names if name != "--table"}
units = [unit for unit in json.load(open(commands)) if "/kernels/cuda/" in unit["file"] and " -x cu " in unit["command"]]
units = [unit for unit in units if not wanted or os.path.basename(unit["file"]) in wanted]
if not units:
    sys.exit("nothing of kernels/cuda is compiled for a GPU in that build: SMOE_CUDA was off, or the files are others")

def ptxas(unit, folder):
    arguments = [a for a in shlex.split(unit["command"]) if not re.match(r"(--generate-code|-gencode|-MD|-MT|-MF)", a)]
    kept, skip = [], False
    for argument in arguments:  # -o FILE goes; what -MT and -MF named is left over, and ends in .o or .d
        if skip or re.search(r"\.o(\.d)?$", argument):
            skip = False
        elif argument == "-o":
            skip = True
        else:
            kept.append(argument)
    kept += [f"--generate-code=arch=compute_{arch},code=[sm_{arch}]", "-Xptxas=-v", "-o", os.path.join(folder, "kernel.o")]
    done = subprocess.run(kept, cwd=unit["directory"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout + done.stderr

def readable(names):
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    short = []
    for name in plain:
        name = re.sub(r"\(anonymous namespace\)::|smoe::cuda::|smoe::|^void ", "", name)
        depth = 0  # the parameters go, the template's arguments stay
        for i, c in enumerate(name):
            depth += (c == "<") - (c == ">" and name[i - 1] != "-")
            if c == "(" and depth == 0:
                name = name[:i]
                break
        short.append(name)
    return short

def print_rows(file, rows):
    print(file)
    for plain, row in rows:
        print(f"  {plain:<62} {row['registers']:>9} {row['shared']:>7} {row['stack']:>6} {row['spilled']:>8}")

def print_table_rows(file, rows):
    kernels = {}
    for plain, row in rows:
        kernels.setdefault(plain.split("<")[0], []).append(row)
    for kernel, instances in kernels.items():
        registers = sorted({row["registers"] for row in instances})
        cells = [f"{registers[0]} to {registers[-1]}" if len(registers) > 1 else str(registers[0])]
        cells += [str(max(row[of] for row in instances)) for of in ("shared", "stack", "spilled")]
        print(f"| `{file}` | {kernel.removesuffix('_kernel')} | {len(instances)} | " + " | ".join(cells) + " |")

if as_table:
    print(f"| file | kernel, sm_{arch} | instances | registers | shared | stack | spilled |\n|---|---|---|---|---|---|---|")
else:
    print(f"{'kernel, sm_' + arch:<64} {'registers':>9} {'shared':>7} {'stack':>6} {'spilled':>8}")
with tempfile.TemporaryDirectory() as folder:
    for unit in units:
        rows, name = {}, None
        for line in ptxas(unit, folder).split("\n"):
            if found := re.search(r"Function properties for (\S+)|Compiling entry function '(\S+)'", line):
                name = found[1] or found[2]
            if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                rows.setdefault(name, {}).update(stack=int(found[1]), spilled=int(found[2]) + int(found[3]))
            if found := re.search(r"Used (\d+) registers", line):
                shared = re.search(r"(\d+) bytes smem", line)
                rows.setdefault(name, {}).update(registers=int(found[1]), shared=int(shared[1]) if shared else 0)
        kernels = [(name, row) for name, row in rows.items() if "registers" in row]  # functions of their own have none
        named = [(plain, {"stack": 0, "spilled": 0} | row)
                 for plain, (_, row) in zip(readable([name for name, _ in kernels]), kernels)]
        named.sort(key=lambda kernel: kernel[0])
        if named:
            (print_table_rows if as_table else print_rows)(os.path.basename(unit["file"]), named)
END
