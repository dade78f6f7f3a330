"""What the fault tests share: the tiny run, jobs of ranks, their end, and the comparison with an unbroken run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 40
INTERVAL = 5  # steps between checkpoints: what a kill may cost
# Measurements of the machine; everything else in a row of metrics is the run's own and must come out the same.
MEASURED = {"tokens_per_sec", "mfu", "share_of_product", "step_seconds", "model_gflops", "peak_memory_bytes",
            "peak_device_memory_bytes"}


class Failure(Exception):
    """What a test found wrong."""


class Layout:
    """dp,tp,ep as in 2,1,2."""

    def __init__(self, text):
        self.name = text
        try:
            self.dp, self.tp, self.ep = (int(part) for part in text.split(","))
        except ValueError:
            raise SystemExit(f"a layout is dp,tp,ep as in 2,1,2; found '{text}'") from None
        self.ranks = self.dp * self.tp

    def overrides(self):
        return [f"parallel.tp={self.tp}", f"parallel.ep={self.ep}"]


class Workplace:
    """A scratch folder with the tiny run's configuration and shards."""

    def __init__(self, smoe):
        self.smoe = Path(smoe).resolve()
        if not os.access(self.smoe, os.X_OK):
            raise SystemExit(f"{smoe}: no such program; build it first (cmake --preset release, cmake --build --preset release)")
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")
        self.path = Path(tempfile.mkdtemp(prefix="smoe-faults-"))
        subprocess.run(["bash", Path(__file__).with_name("common.sh"), self.smoe, self.path], check=True)
        self.config = self.path / "config.yaml"
        # Open MPI leaves its session folders behind where processes are killed.
        self.sessions = self.path / "tmp"
        self.sessions.mkdir()
        os.environ["TMPDIR"] = str(self.sessions)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and kind is not SystemExit:
            print(f"the runs are kept in {self.path}", file=sys.stderr)
        else:
            shutil.rmtree(self.path, ignore_errors=True)  # Open MPI's helpers may still be clearing up theirs

    def train(self, run, overrides=()):
        return [str(self.smoe), "train", str(self.config), f"train.output_dir={run}", *overrides]

    def train_ranks(self, run, layout, overrides=(), mpirun="mpirun"):
        return [str(mpirun), "--oversubscribe", "--bind-to", "none", "-n", str(layout.ranks),
                *self.train(run, [*layout.overrides(), *overrides])]

    def copy(self, source, target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def run_to_end(command, log, seconds=60):
    """Status of the command; its output goes to the end of the log. A hang is a failure."""
    with open(log, "a") as out:
        try:
            return subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            raise Failure(f"no end within {seconds} s: {' '.join(map(str, command))}\n{tail(log)}") from None


def tail(path, lines=15):
    return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])


def last_step(run):
    """The last step whose row is whole in metrics.jsonl; 0 without any."""
    try:
        text = (run / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return 0
    steps = re.findall(r'^\{"step":\s*(\d+),\s*"tokens".*\}$', text, re.MULTILINE)
    return int(steps[-1]) if steps else 0


def resumed_at(log):
    """The step of the last 'resumed from' in a job's output; 0 where it began afresh."""
    found = re.findall(r"resumed from .* at step (\d+)", Path(log).read_text(errors="replace"))
    return int(found[-1]) if found else 0


def rows(run):
    """metrics.jsonl without what was measured; numbers as they are printed."""
    kept = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line, parse_float=str, parse_int=str)
        kept.append({key: value for key, value in row.items() if key not in MEASURED})
    return kept


def checkpoint_hashes(run):
    """Every file under checkpoints/ with its SHA-256, whatever it is: nothing may be missing, and nothing left over."""
    root = run / "checkpoints"
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def litter(run):
    """Files and folders that a whole run does not leave: hidden ones, but for the lock."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*") if path.name not in (".lock", ".claim"))


def require_same(run, oracle):
    """The run has the bits of the oracle: every row of metrics, every file of its checkpoints, and no litter. An older
    checkpoint may still be there, where the kill came before its removal and no later save removed it."""
    mine, theirs = rows(run), rows(oracle)
    for row, expected in zip(mine, theirs):
        if row != expected:
            keys = [key for key in expected if row.get(key) != expected[key]]
            raise Failure(f"{run}/metrics.jsonl, step {expected['step']}: {keys} differ: "
                          f"{[row.get(key) for key in keys]}, expected {[expected[key] for key in keys]}")
    if len(mine) != len(theirs):
        raise Failure(f"{run}/metrics.jsonl: {len(mine)} rows, expected {len(theirs)}")
    found, expected = checkpoint_hashes(run), checkpoint_hashes(oracle)
    if different := sorted(name for name in expected if found.get(name) != expected[name]):
        raise Failure(f"{run}/checkpoints: not as in the unbroken run: {different}")
    newest = max(expected)
    if added := sorted(name for name in found.keys() - expected.keys() if not "step-" < name < newest):
        raise Failure(f"{run}/checkpoints: not in the unbroken run: {added}")
    require_whole_checkpoints(run)
    if left := litter(run):
        raise Failure(f"{run}: left behind: {left}")


def require_whole_checkpoints(run):
    """Every checkpoint that has a name holds every file of its manifest, unchanged, and `latest` names one of them."""
    root = run / "checkpoints"
    for checkpoint in root.glob("step-*"):
        for entry in json.loads((checkpoint / "manifest.json").read_text())["files"]:
            path = checkpoint / entry["file"]
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
                raise Failure(f"{path}: missing or changed")
    if not (root / (root / "latest").read_text().strip() / "manifest.json").is_file():
        raise Failure(f"{root}/latest names no checkpoint")


def is_alive(pid):
    """A process that has ended may still wait to be collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Job:
    """mpirun with its ranks, in the background; the log holds its output and nothing of earlier jobs."""

    def __init__(self, command, log):
        self.log = Path(log)
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.started = time.monotonic()

    def ended(self):
        return self.process.poll() is not None

    def rank_pids(self):
        """By rank; those that there are."""
        pids = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent != self.process.pid:
                    continue
                if rank := re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)\0", (folder / "environ").read_bytes()):
                    pids[int(rank.group(1))] = int(folder.name)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
        return pids

    def wait_for(self, condition, seconds=60):
        """Until the condition holds (True) or the job has ended (False)."""
        end = time.monotonic() + seconds
        while not condition():
            if self.ended():
                return False
            if time.monotonic() > end:
                self.kill_all()
                raise Failure(f"waited {seconds} s in vain\n{tail(self.log)}")
            time.sleep(0.001)
        return True

    def finish(self, seconds=60, pids=()):
        """Status, and the seconds from now until mpirun and all of these processes are gone."""
        start = time.monotonic()
        while not self.ended() or any(is_alive(pid) for pid in pids):
            if time.monotonic() - start > seconds:
                self.kill_all()
                raise Failure(f"the job was still there after {seconds} s\n{tail(self.log)}")
            time.sleep(0.005)
        return self.process.returncode, time.monotonic() - start

    def kill_all(self):
        pids = self.rank_pids().values()
        self.process.kill()
        for pid in pids:
            os.kill(pid, 9)
        self.process.wait()


def make_oracle(place, layout, overrides=()):
    """An unbroken run of the layout."""
    run = place.path / f"oracle-{layout.name}"
    log = place.path / f"oracle-{layout.name}.log"
    status = run_to_end(place.train_ranks(run, layout, overrides), log)
    if status != 0:
        raise Failure(f"the unbroken run ended with status {status}\n{tail(log)}")
    return run


def main(work):
    """Runs a script's work and tells what it found."""
    try:
        return work()
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
