#!/usr/bin/env python3
"""Breaks one save at every system call that it makes: a kill at the call, or an error of a full or failing disk from it.

    killed_saves.py SMOE [--stride N] [--offset N] [--ranks R] [--kinds kill error] [--scenes new again]

The save is of step 6, by a run that goes on from step 5; then step 5 is removed. Scene `new`: there is no step 6 yet.
Scene `again`: there is one, left by a kill before `latest` was written, and the two change places.
After a kill the checkpoints that have a name must be whole. An error must end the run with status 1 and name the file
and the reason, and leave step 5 as it was. In every case the same command, given again, must reach the unbroken run's
bits. Needs strace; status 77 without it.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys

from jobs import Failure, Workplace, main, require_same, require_whole_checkpoints, run_to_end, tail

CALLS = ["write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir",
         "mkdirat", "openat", "ftruncate", "fallocate"]
# What a full or failing disk answers. Exchanging two directories has its own way round a refusal.
ERRORS = {"write": "ENOSPC", "pwrite64": "ENOSPC", "fallocate": "ENOSPC", "ftruncate": "ENOSPC", "mkdir": "ENOSPC", "openat": "ENOSPC",
          "rename": "ENOSPC", "fsync": "EIO"}
REASONS = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}
SMALLER = ["model.num_hidden_layers=1", "model.num_local_experts=2", "log.tensorboard=false"]  # fewer tensors to write
HIDDEN = "checkpoints/.step-000006.unfinished"


class Call:
    """One call of the save: which of its kind it is in the life of its thread, and what it touches."""

    def __init__(self, name, ordinal, line):
        self.name, self.ordinal, self.line = name, ordinal, line
        self.where = normal(line)

    def may_fail(self):
        if self.name not in ERRORS or " = -1" in self.line:
            return False
        return self.name != "openat" or "O_CREAT" in self.line

    def file(self):
        """The name of the file that it is about, without a temporary's decoration."""
        by_name = self.name in ("openat", "mkdir", "rename")
        name = re.search(r'"([^"]*)"' if by_name else r"<([^>]*)>", self.line).group(1).rsplit("/", 1)[-1]
        return re.sub(r"^\.(.*)\.tmp-[0-9a-f]{16}$", r"\1", name)


def normal(line):
    """The call without what differs from run to run: names drawn by chance, descriptors, results."""
    line = re.sub(r"tmp-[0-9a-f]{16}", "tmp", line.rpartition(" = ")[0])
    paths = re.findall(r'</([^>]*)>|"(/[^"]*)"', line)
    name = line.split("(")[0]
    return name + " " + " ".join(re.sub(r"^.*?/(checkpoints|metrics)", r"\1", a or b) for a, b in paths[:2])


def calls_of(trace):
    """All calls in a trace, in order."""
    found, counts = [], {}
    for line in trace.read_text(errors="replace").splitlines():
        if match := re.match(r"(\w+)\(", line):
            name = match.group(1)
            counts[name] = counts.get(name, 0) + 1
            found.append(Call(name, counts[name], line))
    return found


def require_durable_order(calls):
    """What no kill can show and a power cut would: every file is synced after its last write and before its directory
    gets its name, the name is synced before `latest` speaks of it, and `latest` itself is written, synced, renamed, synced."""
    def last(what, before):
        found = [i for i, call in enumerate(calls[:before]) if what(call)]
        if not found:
            raise Failure(f"no such call in the save: {what.__doc__}")
        return found[-1]

    def of(names, piece, ending=""):
        def what(call):
            return call.name in names and piece in call.line and (not ending or re.search(ending, call.line))
        what.__doc__ = f"{names} of {piece}{ending}"
        return what

    end = len(calls)
    renamed = last(of(("rename", "renameat2"), HIDDEN, r'/step-000006"'), end)
    written = [re.search(rf"<([^>]*{HIDDEN}[^>]*)>", call.line) for call in calls[:renamed] if call.name == "pwrite64"]
    files = {match.group(1) for match in written if match}
    if len(files) < 5:
        raise Failure(f"only {len(files)} files were written in the save")
    for file in files:
        if last(of(("fsync",), f"<{file}>"), renamed) < last(of(("pwrite64",), f"<{file}>"), renamed):
            raise Failure(f"{file} is not synced after its last write")
    for folder in ("", "/model", "/optimizer"):
        last(of(("fsync",), f"{HIDDEN}{folder}>"), renamed)
    pointed = last(of(("rename",), ".latest.tmp-"), end)
    order = [renamed, last(of(("fsync",), "/checkpoints>"), pointed), last(of(("fsync",), ".latest.tmp-"), pointed), pointed]
    if order != sorted(order) or last(of(("fsync",), "/checkpoints>"), end) < pointed:
        raise Failure(f"the checkpoint's name, its sync and `latest` come in the wrong order: {[calls[i].line for i in order]}")
    removed = [i for i, call in enumerate(calls) if ".removed" in call.line]
    if removed and removed[0] < pointed:
        raise Failure("an earlier checkpoint is removed before `latest` names the new one")


class Saves:
    def __init__(self, place, scene, ranks):
        self.place, self.scene, self.ranks = place, scene, ranks
        self.base = place.path / f"base-{scene}-{ranks}"
        self.oracle = place.path / f"oracle-{scene}-{ranks}"
        self.run, self.trace, self.log = (place.path / f"{name}-{scene}-{ranks}" for name in ("run", "trace", "log"))
        self.drifted, self.missed, self.starts = 0, [], 0
        self.prepare()

    def command(self, run, steps=6, keep=1, traced=None, inject=()):
        command = self.place.train(run, [*SMALLER, f"train.steps={steps}", f"checkpoint.keep={keep}", f"parallel.ep={self.ranks}"])
        # The first thread alone, which saves; Open MPI's helpers make calls, and so counts, of their own.
        strace = ["strace", "-qq", "-y", "-s", "64", "-o", str(self.trace), "-e", "trace=" + ",".join(CALLS), *inject]
        if self.ranks == 1:
            return command if traced is None else [*strace, *command]
        mpirun = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(self.ranks)]
        if traced is None:
            return [*mpirun, *command]
        plain = shlex.join(command)
        return [*mpirun, "bash", "-c", f'[ "$OMPI_COMM_WORLD_RANK" != {traced} ] || exec {shlex.join(strace)} {plain}; exec {plain}']

    def prepare(self):
        def expect_done(command):
            if run_to_end(command, self.log) != 0:
                raise Failure(f"an unbroken run failed\n{tail(self.log)}")

        expect_done(self.command(self.base, steps=5))
        self.place.copy(self.base, self.oracle)
        expect_done(self.command(self.oracle))
        if self.scene == "again":
            expect_done(self.command(self.base, keep=2))
            (self.base / "checkpoints/latest").write_text("step-000005\n")

    def fresh_start(self):
        """Everything as it was, down to Open MPI's own folders: the numbers of the calls hang on them."""
        self.place.copy(self.base, self.run)
        self.starts += 1
        sessions = self.place.sessions / f"{self.starts:05}"
        sessions.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(sessions)
        self.log.write_text("")

    def calls_of_save(self, rank):
        """The calls of an unbroken save, from its first to its last."""
        self.fresh_start()
        if run_to_end(self.command(self.run, traced=rank), self.log) != 0:
            raise Failure(f"a traced run failed\n{tail(self.log)}")
        require_same(self.run, self.oracle)
        calls = calls_of(self.trace)
        inside = [i for i, call in enumerate(calls) if HIDDEN in call.line or "checkpoints/latest" in call.line.replace(".latest", "latest")
                  or ".removed" in call.line]
        begin = next(i for i in inside if HIDDEN in calls[i].line and calls[i].name.startswith(("mkdir", "openat", "unlink")))
        calls = calls[begin:inside[-1] + 1]
        if self.ranks == 1:
            require_durable_order(calls)
        return calls

    def attempt(self, call, rank, effect):
        """The run with this effect at this call. Returns its status, or None where the call's number had drifted."""
        for _ in range(5):
            self.fresh_start()
            inject = ["-e", f"inject={call.name}:{effect}:when={call.ordinal}"]
            status = run_to_end(self.command(self.run, traced=rank, inject=inject), self.log)
            met = [c for c in calls_of(self.trace) if c.name == call.name][call.ordinal - 1:call.ordinal]
            if met and met[0].where == call.where:
                return status
            self.drifted += 1
        self.missed.append(f"{call.name} {call.ordinal}, meant '{call.where}', met '{met[0].where if met else 'nothing'}'")
        return None

    def go_on(self, what):
        self.log.write_text("")
        if (status := run_to_end(self.command(self.run), self.log)) != 0:
            raise Failure(f"{what}: the command, given again, ended with status {status}\n{tail(self.log)}")
        try:
            require_same(self.run, self.oracle)
        except Failure as failure:
            raise Failure(f"{what}: {failure}") from None

    def kill(self, call, rank):
        what = f"killed at {call.line}"
        status = self.attempt(call, rank, "signal=SIGKILL")
        if status is None:
            return False
        if status == 0:
            raise Failure(f"{what}: it ended with status 0")
        require_whole_checkpoints(self.run)
        self.go_on(what)
        return True

    def fail(self, call, rank):
        error = ERRORS[call.name]
        what = f"{error} from {call.line}"
        status = self.attempt(call, rank, f"error={error}")
        if status is None:
            return False
        said = self.log.read_text()
        if status == 0:  # only for what is tried another way
            require_same(self.run, self.oracle)
            raise Failure(f"{what}: it ended with status 0 and said nothing")
        if status != 1:
            raise Failure(f"{what}: status {status}, expected 1\n{tail(self.log)}")
        if self.ranks > 1 and said.count("smoe: error") != 1:
            raise Failure(f"{what}: expected one message from one rank\n{tail(self.log)}")
        for piece in (REASONS[error], call.file()):
            if piece not in said:
                raise Failure(f"{what}: no '{piece}' in the message\n{tail(self.log)}")
        require_whole_checkpoints(self.run)
        if half := list((self.run / "checkpoints").glob(".*.unfinished")):
            raise Failure(f"{what}: left {half} behind")
        self.go_on(what)
        return True


def work():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smoe")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=["kill", "error"])
    parser.add_argument("--scenes", nargs="+", default=["new", "again"])
    options = parser.parse_args()
    if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        print("skipped: strace is not here, or may not trace")
        return 77
    with Workplace(options.smoe) as place:
        for scene in options.scenes:
            saves = Saves(place, scene, options.ranks)
            for rank in range(options.ranks):
                calls = saves.calls_of_save(rank)
                for kind, act in (("kill", saves.kill), ("error", saves.fail)):
                    if kind not in options.kinds:
                        continue
                    points = calls if kind == "kill" else [call for call in calls if call.may_fail()]
                    chosen = points[options.offset % options.stride::options.stride]
                    done = sum(act(call, rank) for call in chosen)
                    print(f"scene {scene}, rank {rank} of {options.ranks}: {kind} at {done} of the {len(points)} calls of a save: "
                          f"every run bit-identical after going on", flush=True)
                    if done < len(chosen):
                        raise Failure(f"{len(chosen) - done} calls were not met: {saves.missed}")
            if saves.drifted:
                print(f"{saves.drifted} attempts met another call than was meant and were made again")
    return 0


if __name__ == "__main__":
    sys.exit(main(work))
