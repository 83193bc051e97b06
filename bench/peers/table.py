"""Hypertape beside PyTorch and JAX: the same work on the same numbers, in turns on one machine.

Called by `run`, which builds the workers; docs/performance.md says how it measures.
"""

import argparse
import itertools
import os
import re
import signal
import statistics
import sys
import time

import processes
import report
import rows
import statistics_of

TOLERANCE = {"float32": 1e-3, "float64": 1e-8}
FEWEST_ROUNDS = 3
# After work on several threads those spin for a while, in every system.
PAUSE = 0.005


def difference(ours, theirs):
    """The largest difference of checksums, in norms of the result."""
    if len(ours) != len(theirs):
        return float("inf")
    worst = 0.0
    for (norm, along), (its_norm, its_along) in zip(ours, theirs):
        gap = max(abs(norm - its_norm), abs(along - its_along))
        worst = max(worst, gap / max(norm, its_norm) if gap > 0 else 0.0)
    return worst


def measure(row, dtype, threads, workers, options, say):
    """The row's entry in peers.json."""
    entry = {"work": row.work, "dtype": dtype, "threads": threads}
    answers, errors = {}, {}

    def ask(system, line):
        try:
            return workers[system].ask(line)
        except processes.WorkerFailed as error:
            errors[system] = str(error)
            answers.pop(system, None)
            return None

    for system in workers:
        say(f"first result of {system}")
        try:
            workers[system].versions
        except processes.WorkerFailed as error:
            errors[system] = str(error)
            continue
        answer = ask(system, f"setup {row.work} {dtype}")
        if answer:
            answers[system] = answer
    if rows.HYPERTAPE in answers:
        ours = answers[rows.HYPERTAPE]["checksum"]
        for system in answers:
            apart = difference(ours, answers[system]["checksum"])
            if not apart <= TOLERANCE[dtype]:
                return entry | {"refused": f"the result of {system} differs by {apart:.1e} of its norm"}

    times = {system: [] for system in answers}
    rounds, start = options.rounds, time.monotonic()
    for turn in itertools.count():
        if turn == 1:
            affordable = int(options.seconds / max(time.monotonic() - start, 1e-9))
            rounds = max(min(rounds, affordable), min(rounds, FEWEST_ROUNDS))
        if turn >= rounds or not answers:
            break
        say(f"round {turn + 1} of {rounds}")
        order = list(answers)
        for system in order[turn % len(order) :] + order[: turn % len(order)]:
            answer = ask(system, "run")
            if answer:
                times[system].append(answer["seconds"])
            if threads > 1:
                time.sleep(PAUSE)
    # A system that failed on the way has no times.
    times = {system: times[system] for system in answers}
    seconds = {system: statistics.median(values) for system, values in times.items()}
    peaks = {}
    for system in list(answers):
        say(f"peak of {system}")
        answer = ask(system, "peak")
        if answer:
            peaks[system] = answer["bytes"]

    peers = [system for system in seconds if system != rows.HYPERTAPE]
    ratio = interval = best = None
    if rows.HYPERTAPE in seconds:
        if peers:
            best = min(peers, key=seconds.get)
            ratio, interval = statistics_of.ratio_with_interval(times[rows.HYPERTAPE], times[best])
    entry |= {
        "seconds": {system: seconds.get(system) for system in rows.SYSTEMS},
        "ratio_to_best_peer": ratio,
        "ratio_interval": interval,
        "percent_of_limit": None,  # by Limits.fill
        "peak_bytes": {system: peaks.get(system) for system in rows.SYSTEMS},
        "first_result_seconds": {
            system: answers[system]["first_seconds"] if system in answers else None for system in rows.SYSTEMS
        },
        "best_peer": best,
        "rounds": rounds,
        "variants": {system: answer["variant"] for system, answer in answers.items()},
    }
    if errors:
        entry["errors"] = errors
    return entry


class Limits:
    """What the machine can do on each number of threads: the most of several measurements between rows, since
    a neighbour may take its share of any one of them."""

    EVERY = 120.0  # seconds

    def __init__(self, places, threads):
        self.places = places
        self.most = {count: processes.limits_of(places, count) for count in threads}
        self.time = time.monotonic()

    def __getitem__(self, threads):
        return self.most[threads]

    def measure_again(self):
        for threads, most in self.most.items():
            now = processes.limits_of(self.places, threads)
            most["operations"] = max(most["operations"], now["operations"])
            most["bandwidth"] = [
                [size, max(rate, again)] for (size, rate), (_, again) in zip(most["bandwidth"], now["bandwidth"])
            ]
        self.time = time.monotonic()

    def measure_when_due(self):
        if time.monotonic() - self.time > self.EVERY:
            self.measure_again()

    def fill(self, row, entry):
        """The entry's percent_of_limit by what has been measured so far."""
        seconds = entry.get("seconds", {}).get(rows.HYPERTAPE)
        least = row.least_seconds(self.most[entry["threads"]], entry["dtype"])
        if seconds and least:
            entry["percent_of_limit"] = 100 * least / seconds

    def as_json(self):
        return {str(threads): limits for threads, limits in self.most.items()}


def parse_options():
    parser = argparse.ArgumentParser(prog="bench/peers/run <build folder>", description=__doc__)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--rows", default="", metavar="REGEX", help="rows whose name it is found in")
    parser.add_argument("--rounds", type=int, default=20, help="at most (default 20)")
    parser.add_argument("--seconds", type=float, default=60.0, help="rounds of a row end then (default 60)")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="1,2")
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=list(rows.DTYPES))
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(rows.SYSTEMS))
    parser.add_argument("--quick", action="store_true", help="fewer rows, 5 rounds")
    parser.add_argument("--list", action="store_true", help="print the rows' names and stop")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one answer of a worker")
    parser.add_argument("--out", metavar="FILE", help="peers.json (default: in the build folder)")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds = min(options.rounds, 5)
    if options.rounds < 1 or min(options.threads) < 1:
        parser.error("rounds and threads are at least 1")
    for given, known in ((options.dtypes, rows.DTYPES), (options.systems, rows.SYSTEMS)):
        for each in given:
            if each not in known:
                parser.error(f"{each} is none of {', '.join(known)}")
    try:
        re.compile(options.rows)
    except re.error as error:
        parser.error(f"--rows: {error}")
    cpus = len(os.sched_getaffinity(0))
    options.threads = [threads for threads in options.threads if threads <= cpus]
    options.out = options.out or os.path.join(options.build, "peers.json")
    return options


def chosen(options):
    """(row, dtype, threads), those that share processes next to each other."""
    result = []
    for family, group in itertools.groupby(rows.catalogue(), key=lambda row: row.family):
        group = [
            row
            for row in group
            if re.search(options.rows, row.work) and (row.quick or not options.quick)
        ]
        cases = [
            (row, dtype, threads)
            for row in group
            for dtype in row.dtypes
            for threads in row.threads
            if dtype in options.dtypes and threads in options.threads
        ]
        result += sorted(cases, key=lambda case: case[2]) if family else cases
    return result


def expected_seconds(case, options):
    """Only for the time left: a start-up, and rounds at a few times the least."""
    row, dtype, threads = case
    once = len(row.systems) * max(3 * row.least_seconds(options.limits[threads], dtype), 4e-3)
    rounds = max(FEWEST_ROUNDS, min(options.rounds, options.seconds / once))
    return (0.6 if row.family else 20.0) + (rounds + 4) * once


def main():
    options = parse_options()
    cases = chosen(options)
    if options.list or not cases:
        print("\n".join(dict.fromkeys(row.work for row, _, _ in cases)) or "no such rows")
        return 0 if cases else 2
    places = processes.Places(options.build, sys.executable)
    about = report.machine()
    limits = options.limits = Limits(places, sorted({case[2] for case in cases}))

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = processes.Pool(places, options.timeout)
    progress = report.Progress([expected_seconds(case, options) for case in cases])
    finished, measured, interrupted = [], [], False

    def keep():
        for row, entry in zip(measured, finished):
            limits.fill(row, entry)
        about["limits"] = limits.as_json()
        report.write_json(options.out, about, pool.versions, finished)

    try:
        for row, dtype, threads in cases:
            limits.measure_when_due()
            say = lambda text: progress.show(f"{row.work} {dtype} {threads} threads, {text}")  # noqa: E731
            say("start")
            workers = pool.workers_for(row, threads, options.systems)
            finished.append(measure(row, dtype, threads, workers, options, say))
            measured.append(row)
            keep()
            progress.advance()
        limits.measure_again()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        pool.close()
        progress.clear()
    if interrupted:
        print(f"interrupted after {len(finished)} of {len(cases)} rows", file=sys.stderr)
    if not finished:
        return 1
    keep()
    text = os.path.splitext(options.out)[0] + ".md"
    report.write(text, report.markdown(finished))
    print(report.aligned(finished))
    print(report.summary(finished))
    for row in finished:
        for system, error in row.get("errors", {}).items():
            print(f"{row['work']} {row['dtype']} {row['threads']} threads: {system}: {error}")
    print(f"{options.out}, {text}")
    incomplete = any("refused" in row or "errors" in row for row in finished)
    return 130 if interrupted else int(incomplete)


if __name__ == "__main__":
    sys.exit(main())
