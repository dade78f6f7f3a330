#!/usr/bin/env python3
"""Asks a job to stop, by every signal and on every way that is promised, at a random step.

    signalled_ranks.py SMOE [--seed S] [--layouts dp,tp,ep ...] [--ways WAY ...]

All ranks must stop at one step boundary, whose checkpoint must be there; the status is 18; the same command, given
again, goes on at the very next step and ends with the bits of an unbroken run.
"""

import argparse
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

from jobs import (Failure, Job, Layout, Workplace, last_step, main, make_oracle, require_same, require_whole_checkpoints,
                  resumed_at, run_to_end, tail)

WRAPPER = Path(__file__).resolve().parents[2] / "launch/mpirun"
# How the job was started, who gets the signal, and which.
WAYS = {
    "mpirun-usr1": ("mpirun", "job", signal.SIGUSR1),
    "rank-usr1": ("mpirun", "rank", signal.SIGUSR1),
    "rank-term": ("mpirun", "rank", signal.SIGTERM),
    "all-ranks-term-twice": ("mpirun", "ranks", signal.SIGTERM),
    "wrapper-usr1": (WRAPPER, "job", signal.SIGUSR1),
    "wrapper-term": (WRAPPER, "job", signal.SIGTERM),
    "wrapper-int": (WRAPPER, "job", signal.SIGINT),
}
STOPPED = 18
KEEP_ONE = ["checkpoint.keep=1"]  # the checkpoint of the stop must not change which ones are there at the end


def send(job, way, dice):
    _, whom, number = WAYS[way]
    if whom == "job":
        return os.kill(job.process.pid, number)
    pids = list(job.rank_pids().values())
    if whom == "rank":
        return os.kill(dice.choice(pids), number)
    for _ in range(40):  # as from a scheduler that signals all, and then once more, while the ranks are ending
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def stop_and_go_on(place, layout, way, oracle, dice):
    run = place.path / f"run-{layout.name}-{way}"
    log = place.path / f"{run.name}.log"
    step = dice.randint(1, 25)
    job = Job(place.train_ranks(run, layout, KEEP_ONE, WAYS[way][0]), log)
    if not job.wait_for(lambda: last_step(run) >= step):
        raise Failure(f"{way}: the job ended before step {step}\n{tail(log)}")
    send(job, way, dice)
    status, seconds = job.finish()
    if status != STOPPED:
        raise Failure(f"{way}: status {status}, expected {STOPPED}\n{tail(log)}")
    said = re.findall(r"stopped by a signal after step (\d+)", log.read_text())
    last = last_step(run)
    latest = (run / "checkpoints/latest").read_text().strip()
    if said != [str(last)] or latest != f"step-{last:06}":
        raise Failure(f"{way}: the last row is of step {last}, the latest checkpoint is {latest}, and it said {said}\n{tail(log)}")
    require_whole_checkpoints(run)
    log.write_text("")
    if (status := run_to_end(place.train_ranks(run, layout, KEEP_ONE), log)) != 0 or resumed_at(log) != last:
        raise Failure(f"{way}: given again, the command went on from step {resumed_at(log)}, expected {last}; status {status}\n{tail(log)}")
    require_same(run, oracle)
    print(f"dp,tp,ep {layout.name}  {way}: stopped after step {last} in {seconds:.2f} s with status {STOPPED}, nothing lost, "
          "bit-identical at its end", flush=True)


def work():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smoe")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layouts", nargs="+", default=["2,1,2", "2,2,2"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with Workplace(options.smoe) as place:
        for layout in map(Layout, options.layouts):
            oracle = make_oracle(place, layout, KEEP_ONE)
            for way in options.ways:
                stop_and_go_on(place, layout, way, oracle, dice)


if __name__ == "__main__":
    sys.exit(main(work))
