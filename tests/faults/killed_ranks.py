#!/usr/bin/env python3
"""Kills a random rank (or mpirun) at a random moment, again and again, and starts the same command anew each time.

    killed_ranks.py SMOE [--kills N] [--seed S] [--layouts dp,tp,ep ...]

Each kill must end the whole job, with another status than 0, in 5 seconds; no kill may cost more steps than lie between
two checkpoints; and each run, however often it was broken, must end with the bits of an unbroken one.
"""

import argparse
import os
import random
import re
import signal
import sys
import time

from jobs import (INTERVAL, STEPS, Failure, Job, Layout, Workplace, last_step, main, make_oracle, require_same, resumed_at,
                  tail)

LAYOUTS = ["2,1,2", "1,2,2", "2,2,4", "4,1,2", "2,2,2", "1,4,1"]
STARTED = re.compile("active a token|nothing left to train")  # where it goes on from has been decided and said
END_LIMIT = 5.0  # seconds from the kill to the end of mpirun and all ranks


class Kills:
    """The kills of one layout, and what they cost."""

    def __init__(self, place, layout, dice):
        self.place, self.layout, self.dice = place, layout, dice
        self.seconds, self.lost, self.runs = [], [], 0

    def wait_for_moment(self, job, run):
        """Waits until the moment to kill; says where that was. None if the job ended before it."""
        where = self.dice.random()
        done = last_step(run)
        if where < 0.1:
            time.sleep(self.dice.uniform(0, 0.8))
            return None if job.ended() else "while starting"
        step = min(STEPS - 1, done + self.dice.randint(1, 9))
        if where < 0.5:  # inside a save: its folder is there, or has just been
            step = -(-step // INTERVAL) * INTERVAL
            hidden, whole = run / f"checkpoints/.step-{step:06}.unfinished", run / f"checkpoints/step-{step:06}"
            if not job.wait_for(lambda: hidden.exists() or whole.exists()):
                return None
            time.sleep(self.dice.uniform(0, 0.08))
            return None if job.ended() else f"in the save of step {step}"
        if not job.wait_for(lambda: last_step(run) >= step):
            return None
        time.sleep(self.dice.uniform(0, 0.1))
        return None if job.ended() else f"after step {step}"

    def kill_once(self, job, run, number, total):
        """True if the job was killed, False if it ended by itself first."""
        moment = self.wait_for_moment(job, run)
        pids = job.rank_pids() if moment else {}
        if not pids:
            return False
        rank = self.dice.choice([*pids, "mpirun"]) if self.dice.random() < 0.2 else self.dice.choice([*pids])
        victim = job.process.pid if rank == "mpirun" else pids[rank]
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return False
        status, seconds = job.finish(30, pids.values())
        if status == 0:
            return False  # the kill met a rank that had done its work
        if seconds > END_LIMIT:
            raise Failure(f"the job was over {seconds:.1f} s after the kill, expected at most {END_LIMIT}\n{tail(job.log)}")
        self.seconds.append(seconds)
        who = "mpirun" if rank == "mpirun" else f"rank {rank} of {self.layout.ranks}"
        print(f"kill {number}/{total}  dp,tp,ep {self.layout.name}  {who} {moment}: over in {seconds:.2f} s, status {status}", flush=True)
        return True

    def perform(self, kills, first_number, total):
        oracle = make_oracle(self.place, self.layout)
        done = 0
        while done < kills:
            self.runs += 1
            run = self.place.path / f"run-{self.layout.name}-{self.runs}"
            log = self.place.path / f"{run.name}.log"
            reached = 0  # steps on disk when the job was killed
            while True:
                job = Job(self.place.train_ranks(run, self.layout), log)
                killed = done < kills and self.kill_once(job, run, first_number + done, total)
                if not killed:
                    status, _ = job.finish()
                done += killed
                if reached and STARTED.search(log.read_text()):
                    self.lost.append(reached - resumed_at(log))
                    if self.lost[-1] > INTERVAL:
                        raise Failure(f"{self.lost[-1]} steps were lost, expected at most {INTERVAL}\n{tail(log)}")
                    reached = 0
                if killed:
                    reached = max(reached, last_step(run))
                    continue
                if status != 0:
                    raise Failure(f"the command ended with status {status} after a kill\n{tail(log)}")
                break
            require_same(run, oracle)
            print(f"dp,tp,ep {self.layout.name}, run {self.runs}: at its end, bit-identical to the unbroken run", flush=True)


def work():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smoe")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS)
    options = parser.parse_args()
    layouts = [Layout(text) for text in options.layouts]
    dice = random.Random(options.seed)
    results = []
    with Workplace(options.smoe) as place:
        first = 1
        for index, layout in enumerate(layouts):
            share = options.kills // len(layouts) + (index < options.kills % len(layouts))
            if share == 0:
                continue
            results.append(Kills(place, layout, dice))
            results[-1].perform(share, first, options.kills)
            first += share
    print(f"{sum(len(r.seconds) for r in results)} kills (seed {options.seed}) on {len(results)} layouts: over in at most "
          f"{max(s for r in results for s in r.seconds):.2f} s, at most {max(n for r in results for n in r.lost)} steps lost, "
          f"all {sum(r.runs for r in results)} runs bit-identical to the unbroken ones")


if __name__ == "__main__":
    sys.exit(main(work))
