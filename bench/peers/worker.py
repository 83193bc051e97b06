"""The side of the line protocol that runs in a peer's process: one line of JSON for each line of input.

    setup <work> <dtype>   builds the data, computes the first result: {"first_seconds", "checksum", "calls",
                           "variant"}
    run                    one repetition of at least 2 ms: {"seconds"} per call
    peak                   one call, no result kept before: {"bytes"} that the process grew by
    quit

An exception makes a line {"error"}. At its start a worker says {"system", "versions"}.
"""

import ctypes
import json
import os
import resource
import sys
import time

import problem

LEAST_SECONDS = 2e-3


class Work:
    """`variants`: functions by name that compute the same; the fastest is measured. `wait(result)` returns
    when it is there, `arrays(result)` gives its parts as numpy arrays. `stateful` variants go on from what
    their last call left."""

    def __init__(self, variants, wait, arrays):
        self.variants, self.wait, self.arrays = variants, wait, arrays


def status(field):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return 1024 * int(line.split()[1])
    raise RuntimeError("no " + field + " in /proc/self/status")


def growth(call):
    """Bytes that the resident memory rose by during the call, freed memory given back before."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark starts again
        before = status("VmRSS")
        call()
        return max(0, status("VmHWM") - before)
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


class Worker:
    def __init__(self, build):
        self.build = build
        self.work = self.call = None
        self.calls = 1

    def repeat(self, calls):
        start = time.perf_counter()
        for _ in range(calls - 1):
            self.call()
        result = self.call()
        self.work.wait(result)
        return time.perf_counter() - start

    def setup(self, name, dtype):
        self.work = self.call = None
        self.work = self.build(name, dtype)
        first, sums, best = {}, {}, {}
        for variant, call in self.work.variants.items():
            start = time.perf_counter()
            result = call()
            self.work.wait(result)
            first[variant] = time.perf_counter() - start
            sums[variant] = problem.checksum(self.work.arrays(result))
            del result
            if len(self.work.variants) > 1:
                self.call = call
                best[variant] = min(self.repeat(1) for _ in range(3))
        chosen = min(best, key=best.get) if best else variant
        self.call = self.work.variants[chosen]
        self.calls = 1
        while self.repeat(self.calls) < LEAST_SECONDS:
            self.calls *= 2
        return {
            "first_seconds": first[chosen],
            "checksum": sums[chosen],
            "calls": self.calls,
            "variant": chosen,
        }

    def answer(self, line):
        command, *arguments = line.split()
        if command == "setup":
            return self.setup(*arguments)
        if command == "run":
            return {"seconds": self.repeat(self.calls) / self.calls}
        if command == "peak":
            return {"bytes": growth(lambda: self.work.wait(self.call()))}
        raise ValueError("unknown command " + command)


def serve(system, versions, build):
    """`build(work, dtype)` returns a Work."""
    # Whatever a library prints must not get between the lines.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=out, flush=True)

    say({"system": system, "versions": versions})
    worker = Worker(build)
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        try:
            say(worker.answer(line))
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
