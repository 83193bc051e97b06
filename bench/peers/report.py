"""What is printed and written: an aligned table, a table in Markdown, JSON."""

import json
import os
import platform
import statistics
import sys
import time

import rows


def seconds_text(seconds):
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def bytes_text(size):
    if size is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


TITLES = (
    "work", "dtype", "threads", "Hypertape", "PyTorch", "PyTorch C++", "JAX", "ratio", "90 %",
    "of limit", "peak", "best peer's", "first", "best peer's",
)  # fmt: skip


def cells(row):
    head = [row["work"], row["dtype"], str(row["threads"])]
    if "refused" in row:
        return head + ["refused: " + row["refused"]] + [""] * (len(TITLES) - 4)

    def of(values, text):
        return [text(values.get(rows.HYPERTAPE)), text(values.get(row["best_peer"]))]

    ratio, interval, percent = row["ratio_to_best_peer"], row["ratio_interval"], row["percent_of_limit"]
    return [
        *head,
        *(seconds_text(row["seconds"].get(system)) for system in rows.SYSTEMS),
        "-" if ratio is None else f"{ratio:.2f}",
        "-" if interval is None else f"{interval[0]:.2f}..{interval[1]:.2f}",
        "-" if percent is None else f"{percent:.0f} %",
        *of(row["peak_bytes"], bytes_text),
        *of(row["first_result_seconds"], seconds_text),
    ]


def aligned(finished):
    lines = [list(TITLES)] + [cells(row) for row in finished]
    whole = [line for line in lines if not line[3].startswith("refused")]
    widths = [max(len(line[i]) for line in whole) for i in range(len(TITLES))]
    widths[0] = max(len(line[0]) for line in lines)
    text = ""
    for line in lines:
        # Words to the left, numbers to the right.
        padded = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        text += "  ".join(padded).rstrip() + "\n"
    return text


def markdown(finished):
    lines = [TITLES, ["---"] * 2 + ["---:"] * (len(TITLES) - 2)] + [cells(row) for row in finished]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def summary(finished):
    """For each kind of work and dtype the geometric mean of the ratios, and the rows that are slower beyond noise."""
    kinds = {}
    for row in finished:
        if row.get("ratio_to_best_peer"):
            kinds.setdefault((row["work"].split("/")[0], row["dtype"]), []).append(row)
    text = ""
    for (kind, dtype), group in kinds.items():
        mean = statistics.geometric_mean([row["ratio_to_best_peer"] for row in group])
        slower = [row for row in group if row["ratio_interval"][0] > 1.0]
        text += f"{kind} {dtype}: {len(group)} rows, geometric mean of the ratios {mean:.2f}, slower in {len(slower)}"
        names = [f"{row['work']} on {row['threads']} ({row['ratio_to_best_peer']:.2f})" for row in slower]
        text += (": " + ", ".join(names) if names else "") + "\n"
    return text


def machine():
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": pages,
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
        "load_at_start": os.getloadavg()[0],
    }


def write(path, text):
    """Whole or not at all."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def write_json(path, about, versions, finished):
    write(path, json.dumps({"machine": about, "versions": versions, "rows": finished}, indent=1) + "\n")


class Progress:
    """One line on a terminal: what runs, and the time left by the rows' expected shares."""

    def __init__(self, shares):
        self.shares, self.done, self.start = shares, 0, time.monotonic()
        self.shown = sys.stderr.isatty()

    def show(self, text):
        if not self.shown:
            return
        left = ""
        before, total = sum(self.shares[: self.done]), sum(self.shares)
        if before > 0:
            seconds = (time.monotonic() - self.start) / before * (total - before)
            left = f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        print(f"\r\033[K{self.done + 1} of {len(self.shares)}{left}: {text}", end="", file=sys.stderr, flush=True)

    def advance(self):
        self.done += 1

    def clear(self):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
