"""Workers as processes: started with their CPUs and thread settings, spoken to line by line."""

import json
import os
import select
import signal
import subprocess
import sys

import rows


class WorkerFailed(Exception):
    pass


class Places:
    """Where the workers' programs are."""

    def __init__(self, build, python):
        here = os.path.dirname(os.path.abspath(__file__))
        self.commands = {
            rows.HYPERTAPE: [os.path.join(build, "bench", "peer_worker")],
            rows.PYTORCH_CPP: [os.path.join(build, "peers", "pytorch_cpp", "pytorch_worker")],
            rows.PYTORCH: [python, os.path.join(here, "pytorch_worker.py")],
            rows.JAX: [python, os.path.join(here, "jax_worker.py")],
        }
        self.limits = [os.path.join(build, "bench", "machine_limits")]


def cpus_for(threads):
    """One thread is pinned to the last CPU, which interrupts visit least; several have as many CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    return set(cpus[-1:]) if threads == 1 else set(cpus[:threads])


def environment(system, threads):
    result = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
    if system != rows.HYPERTAPE:
        result |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        result["OPENBLAS_NUM_THREADS"] = "1"  # numpy's own, for checksums
    if system == rows.JAX:
        result["JAX_PLATFORMS"] = "cpu"
        result["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    return result


def start(command, system, threads):
    cpus = cpus_for(threads)
    return subprocess.Popen(
        command + [str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("PEERS_VERBOSE") else subprocess.DEVNULL,
        env=environment(system, threads),
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )


def limits_of(places, threads):
    process = start(places.limits, rows.HYPERTAPE, threads)
    output, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{places.limits[0]} failed with {process.returncode}")
    return json.loads(output)


class Worker:
    """`timeout`: seconds that one answer may take."""

    def __init__(self, places, system, threads, timeout):
        self.system, self.timeout = system, timeout
        self.process = start(places.commands[system], system, threads)
        self.pending = b""
        self._versions = None

    @property
    def versions(self):
        """The greeting, waited for when first asked for."""
        if self._versions is None:
            self._versions = self.read()["versions"]
        return self._versions

    def read(self):
        while b"\n" not in self.pending:
            if not select.select([self.process.stdout], [], [], self.timeout)[0]:
                self.kill()
                raise WorkerFailed(f"no answer within {self.timeout:g} s")
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                code = self.process.wait()
                if code == -signal.SIGKILL:
                    raise WorkerFailed("killed, probably for its memory")
                raise WorkerFailed(f"ended with status {code}; PEERS_VERBOSE=1 shows what it wrote")
            self.pending += more
        line, self.pending = self.pending.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def ask(self, line):
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read() says why
        return self.read()

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def quit(self):
        if self.alive():
            try:
                self.process.stdin.write(b"quit\n")
                self.process.stdin.flush()
                self.process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self.kill()


class Pool:
    """The workers that are alive: those of one family and thread count."""

    def __init__(self, places, timeout):
        self.places, self.timeout = places, timeout
        self.key, self.workers = None, {}
        self.versions = {}

    def workers_for(self, row, threads, systems):
        key = (row.family or object(), threads)
        if key != self.key:
            self.close()
            self.key = key
        wanted = [system for system in systems if system in row.systems]
        for system in wanted:
            if system not in self.workers or not self.workers[system].alive():
                self.workers[system] = Worker(self.places, system, threads, self.timeout)
        for system in wanted:
            try:
                self.versions |= self.workers[system].versions
            except WorkerFailed:
                pass  # its next answer says so again
        return {system: self.workers[system] for system in wanted}

    def close(self):
        for worker in self.workers.values():
            worker.quit()
        self.workers = {}
