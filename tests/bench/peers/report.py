"""Lines as they are known, an end by the clock, and measurements of which none can take the others with it."""

import gc
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

GRACE = 5.0  # seconds past the limit, of a measurement that has begun


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()

    def passed(self):
        return self.left() <= 0


class Report:
    """JSON lines, and a last one. `write` takes a line without its end."""

    def __init__(self, write=lambda line: print(line, flush=True)):
        self.write = write
        self.lock = threading.Lock()
        self.closed = False

    def line(self, what):
        with self.lock:
            if not self.closed:
                self.write(json.dumps(what))

    def close(self, left_out, **more):
        with self.lock:
            if not self.closed:
                self.write(json.dumps({"left_out": left_out, **more}))
            self.closed = True


def first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:240]}" if lines else type(error).__name__


@dataclass
class Measurement:
    """What names it in its line, and what makes the rest of the line; `instead` is tried where it fails."""

    label: dict
    measure: Callable[[], dict]
    instead: "Measurement | None" = None


def run_all(measurements, report, deadline, after_each, **more):
    """Each in turn until the deadline; a line for each. `after_each` frees what it used. `more` goes into the last line."""
    waiting = list(measurements)

    # A compilation or a kernel that hangs is asked by nobody whether it is late.
    def give_up():
        report.close(len(waiting) + 1, stopped_at=current, **more)
        os._exit(0)

    current = None
    watch = threading.Timer(max(0.0, deadline.left()) + GRACE, give_up)
    watch.daemon = True
    watch.start()
    while waiting and not deadline.passed():
        one = waiting.pop(0)
        current = one.label
        failed = False
        try:
            report.line({**one.label, **one.measure()})
        except Exception as error:  # whatever it is, the next is tried
            report.line({**one.label, "error": first_line(error)})
            failed = True
        if failed:
            gc.collect()  # an exception's frames held tensors
            if one.instead:
                waiting.insert(0, one.instead)
        del one
        try:
            after_each()
        except Exception as error:  # a card that has failed for good
            report.line({"error": first_line(error)})
    watch.cancel()
    report.close(len(waiting), **more)
