# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands in parallel, each with its own log file."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".cache" / "logs"
TAIL_LINES = 80


@dataclass(frozen=True)
class Counts:
    """Numbers of passed and failed tests of a job."""

    passed: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed)


@dataclass(frozen=True)
class Job:
    """A command that is one test, or runs many.

    :param name: unique; the name of the log and of the job in the budget.
    :param command: runs at the root of the checkout.
    :param env: additional environment.
    :param needs: names of jobs that must pass first.
    :param count: returns the numbers of tests; its argument is whether the command succeeded.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: Sequence[str] = ()
    count: Callable[[bool], Counts] = lambda ok: Counts(passed=ok, failed=not ok)

    @property
    def log(self) -> Path:
        """Return the log file."""
        return LOGS / f"{self.name.replace(' ', '-')}.log"


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    :param seconds: wall-clock time.
    :param processor: CPU seconds of the command and its children.
    """

    job: Job
    ok: bool
    counts: Counts
    began: float = 0.0
    seconds: float = 0.0
    processor: float = 0.0
    skipped: bool = False


def run(job: Job) -> Outcome:
    """Run a job and wait for it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    began, clock = time.time(), time.monotonic()
    with job.log.open("wb") as output:
        process = subprocess.Popen(
            job.command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **job.env},
        )
        # wait4() instead of Popen.wait(), because it returns the resource usage.
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    ok = process.returncode == 0
    return Outcome(job, ok, job.count(ok), began, time.monotonic() - clock, usage.ru_utime + usage.ru_stime)


def run_all(
    jobs: Sequence[Job], expected: Mapping[str, float], slots: int, started: Callable[[Job], None] = lambda _: None
) -> Iterator[Outcome]:
    """Run jobs in parallel; yields each outcome as the job ends.

    The job with the longest expected time of itself and its dependents starts first. A job whose dependency failed is
    skipped and counts as failed. A dependency that is not among the jobs counts as met.

    :param expected: expected seconds by job.
    :param slots: maximum number of parallel jobs.
    :param started: called with each job that starts.
    """

    def work(job: Job) -> float:
        return expected.get(job.name, 0.0) + max(
            (work(other) for other in jobs if job.name in other.needs), default=0.0
        )

    waiting = sorted(jobs, key=work, reverse=True)
    names = {job.name for job in jobs}
    ended: dict[str, bool] = {}
    running: dict[Future[Outcome], Job] = {}
    with ThreadPoolExecutor(slots) as pool:
        while waiting or running:
            for job in list(waiting):
                needs = [name for name in job.needs if name in names]
                if any(ended.get(name) is False for name in needs):
                    waiting.remove(job)
                    ended[job.name] = False
                    yield Outcome(job, ok=False, counts=Counts(failed=1), skipped=True)
                elif len(running) < slots and all(name in ended for name in needs):
                    waiting.remove(job)
                    started(job)
                    running[pool.submit(run, job)] = job
            if not running:
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                ended[running.pop(future).name] = outcome.ok
                yield outcome


def print_start(job: Job) -> None:
    """Print that a job starts."""
    print(f"     {job.name} …", flush=True)


def print_outcome(outcome: Outcome) -> None:
    """Print the result of a job: messages of the lab if it passed, or the end of its output if it failed."""
    verdict = "ok  " if outcome.ok else "skip" if outcome.skipped else "FAIL"
    print(f"{verdict} {outcome.job.name:28} {outcome.seconds:7.1f} s", flush=True)
    if outcome.skipped:
        print(f"     | not run: {', '.join(outcome.job.needs)} failed", flush=True)
        return
    lines = outcome.job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    if outcome.ok:
        lines = [line for line in lines if line.startswith("lab: ")]
    for line in lines[-TAIL_LINES:]:
        print(f"     | {line}")
    if not outcome.ok:
        print(f"     complete output: {outcome.job.log.relative_to(ROOT)}", flush=True)
