# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Divide the time of a scenario among kinds of work.

The callback plugin `tests/lab/callback/timings.py` records Ansible's tasks, `tests/kit/hosts.py` the waits of stories.
"""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.jobs import Counts

KINDS = {
    "packages": "apt-get, with its downloads",
    "Ansible": "starting ansible-playbook, and tasks that run on the controller alone",
    "modules": "tasks that run a module or a command on a host",
    "builds": "releases and virtualenvs",
    "starts": "hosts, services and slots that start, migrations",
    "waits": "a wait for a condition",
    "stories": "commands and requests of stories, other than playbooks and waits",
}

_CONTROLLER = {
    "",
    "add_host",
    "assert",
    "debug",
    "fail",
    "group_by",
    "include_role",
    "include_tasks",
    "include_vars",
    "meta",
    "set_fact",
    "validate_argument_spec",
}
_STARTS = {"deployment", "docker_container", "docker_network", "service", "systemd", "systemd_service"}
_WAITS = {"pause", "wait", "wait_for", "wait_for_connection"}


@dataclass(frozen=True)
class Interval:
    """A time interval with one kind of work, in seconds since the epoch."""

    begin: float
    end: float
    kind: str


def kind_of(action: str, task: str) -> str:
    """Return the kind of work of a task; `action` is the full name of its module."""
    module = action.rpartition(".")[2]
    if module in ("apt", "package"):
        return "packages"
    if module in _CONTROLLER:
        return "Ansible"
    if module == "release" or "Virtualenv |" in task:
        return "builds"
    if module in _STARTS:
        return "starts"
    if module in _WAITS:
        return "waits"
    return "stories" if task.startswith("Run pytest") else "modules"


def read(file: Path) -> list[Interval]:
    """Read the recorded intervals of a scenario; empty if the file does not exist."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        kind = kind_of(task["action"], task["task"])
        found.append(Interval(task["start"], task["start"] + task["seconds"], kind))
    return found


def divide(begin: float, end: float, intervals: Iterable[Interval]) -> dict[str, float]:
    """Return the seconds from `begin` to `end` by kind of work.

    Where intervals overlap, the time belongs to the one that began last, such as a playbook's task inside a story.
    Time without an interval belongs to Ansible.
    """
    inside = sorted((i for i in intervals if i.end > begin and i.begin < end), key=lambda i: i.begin)
    marks = sorted({begin, end, *(max(begin, i.begin) for i in inside), *(min(end, i.end) for i in inside)})
    seconds = dict.fromkeys(KINDS, 0.0)
    for left, right in itertools.pairwise(marks):
        covering = [i for i in inside if i.begin <= left and i.end >= right]
        seconds[covering[-1].kind if covering else "Ansible"] += right - left
    return seconds


@dataclass(frozen=True)
class Test:
    """A test of pytest; `problem` is the message if it failed."""

    name: str
    seconds: float
    problem: str = ""


def _test(case: ET.Element) -> Test:
    found = [bad for kind in ("failure", "error") for bad in case.iter(kind)]
    name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
    problem = "\n".join(bad.get("message") or bad.text or "no message" for bad in found)
    return Test(name, float(case.get("time", "0")), problem)


def junit(file: Path) -> tuple[Counts, list[Test]]:
    """Read a report of pytest: the numbers of passed and failed tests, and each test's duration with its fixtures."""
    if not file.exists():
        return Counts(failed=1), []
    suite = ET.parse(file).getroot().find("testsuite")
    attributes = suite.attrib if suite is not None else {}
    count = {key: int(attributes.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    tests = [_test(case) for case in (suite.iter("testcase") if suite is not None else ())]
    return Counts(count["tests"] - bad - count["skipped"], bad), tests


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are right-aligned."""
    cells = [[f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *cells]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = f"| {'-' * widths[0]} | {' | '.join('-' * (width - 1) + ':' for width in widths[1:])} |"
    return "\n".join([line(head), rule, *map(line, cells)])
