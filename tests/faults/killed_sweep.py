#!/usr/bin/env python3
"""Kills a sweep at random moments, runs it again, and demands the results of one that was not killed, byte for byte but
for times; and of every point the bits of its run.

    killed_sweep.py SMOE [--kills N] [--seed S] [--ranks N]

A kill falls while the sweep starts, in a step, in a save or between two points, as the dice have it: after a time drawn from
what an unbroken sweep takes. Prints a line a kill and a summary; status 0 if all is well.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time

from jobs import Failure, Workplace, last_step, main, require_same, run_to_end, tail

SWEEP = """base: {config}
output_dir: {study}
method: grid
parameters:
  train.seed: {{values: [1, 2]}}
  router.aux_loss_coef: {{values: [0, 0.01]}}
  optimizer.learning_rate: {{values: [1.0e-3, 1.0e+30]}}
  train.max_skipped_steps: {{value: 3}}
"""  # no step of the larger rate is finite after the first: half of the points fail


def results(study):
    """results.jsonl and results.csv as bytes, without their last columns, which are times."""
    lines = []
    for line in (study / "results.jsonl").read_text().splitlines():
        text, found, _ = line.rpartition(',"seconds":')
        if not found:
            raise Failure(f"{study}/results.jsonl: a row without seconds: {line}")
        lines.append(text)
    table = [line.rpartition(",")[0] for line in (study / "results.csv").read_text().splitlines()]
    return lines, table


class Sweep:
    def __init__(self, place, name, ranks):
        self.study, self.log = place.path / name, place.path / f"{name}.log"
        self.file = place.path / f"{name}.yaml"
        self.file.write_text(SWEEP.format(config=place.config, study=self.study))
        mpirun = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
        self.command = [*mpirun, str(place.smoe), "sweep", str(self.file)]

    def run(self):
        return run_to_end(self.command, self.log, 120)

    def kill_after(self, seconds):
        """True if it was killed, False if it had ended."""
        with open(self.log, "a") as out:
            process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.3 if self.command[0] == "mpirun" else 0)  # ranks of another process group die with their mpirun
            return True

    def done(self):
        try:
            return len((self.study / "results.jsonl").read_text().splitlines())
        except FileNotFoundError:
            return 0


def work():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smoe")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with Workplace(options.smoe) as place:
        whole = Sweep(place, "whole", options.ranks)
        start = time.monotonic()
        if (status := whole.run()) != 1:  # 1: some points failed
            raise Failure(f"the unbroken sweep ended with status {status}\n{tail(whole.log)}")
        takes = time.monotonic() - start
        expected = results(whole.study)
        statuses = [json.loads(line)["status"] for line in (whole.study / "results.jsonl").read_text().splitlines()]
        if statuses != ["done", "failed"] * 4:
            raise Failure(f"the unbroken sweep's points came out as {statuses}")
        kills = sweeps = 0
        while kills < options.kills:
            sweeps += 1
            broken = Sweep(place, f"broken-{sweeps}", options.ranks)
            while kills < options.kills:
                if not broken.kill_after(dice.uniform(0.02, 0.6 * takes)):
                    break
                kills += 1
                steps = {point.name: last_step(point) for point in sorted((broken.study / "points").glob("*"))}
                print(f"kill {kills}/{options.kills}: {broken.done()} of 8 rows, "
                      f"{len(steps)} points begun, step {list(steps.values())[-1] if steps else 0} of the last by name", flush=True)
            if (status := broken.run()) != 1:
                raise Failure(f"the sweep ended with status {status} after a kill\n{tail(broken.log)}")
            if (found := results(broken.study)) != expected:
                raise Failure(f"{broken.study}: other results than the unbroken sweep's:\n{found}\nexpected\n{expected}")
            for line in expected[0]:
                row = json.loads(line + "}")
                if row["status"] == "done":
                    require_same(broken.study / "points" / row["point"], whole.study / "points" / row["point"])
        print(f"{kills} kills (seed {options.seed}, {options.ranks} ranks) in {sweeps} sweeps of {takes:.1f} s: all results are those of "
              "the unbroken sweep, byte for byte but for times")


if __name__ == "__main__":
    sys.exit(main(work))
