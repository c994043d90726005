# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Print results for people, and as JSON for tools."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..._host import command_line
from ..actions.drill import Report
from ..actions.status import Status
from ..archive import names
from ..progress import SILENT, Progress
from ..storage.store import Backup

#: Printed instead of an empty list.
NO_BACKUPS = "there are no backups"
_MEGA = 1_000_000  # bytes


class Bar(Progress):
    """Draws a progress bar on a terminal, 40 characters wide, at most ten times a second."""

    _WIDTH = 40
    _EVERY = 0.1  # seconds

    def __init__(self) -> None:
        self._text, self._total, self._done, self._drawn = "", 0, 0, 0.0

    def __call__(self, text: str, total: int = 0) -> None:
        """Begin a new bar."""
        self.close(done=True)
        self._text, self._total, self._done = text, total, 0
        self._draw()

    def advance(self, count: int) -> None:
        """Add bytes to the current bar."""
        self._done += count
        if time.monotonic() - self._drawn >= self._EVERY:
            self._draw()

    def close(self, *, done: bool) -> None:
        """End the current bar.

        :param done: whether to draw it complete; the bar of a failure stays where it was.
        """
        if self._text:
            self._done = self._total if done else self._done
            self._draw()
            sys.stderr.write("\n")
        self._text = ""

    def _draw(self) -> None:
        share = min(self._done / self._total, 1.0) if self._total else 0.0
        drawn = f"  [{'#' * round(share * self._WIDTH):<{self._WIDTH}}] {share:4.0%}  {size(self._done)}"
        sys.stderr.write(f"\r{self._text}{drawn if self._total else ''}")
        sys.stderr.flush()
        self._drawn = time.monotonic()


class Screen:
    """Prints results as lines or as JSON, and progress if stderr is a terminal."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._bar = Bar() if sys.stderr.isatty() and not json else None

    @property
    def progress(self) -> Progress:
        """The progress bar; silent without a terminal."""
        return self._bar or SILENT

    def show(self, value: Mapping[str, Any] | Sequence[Any], lines: Sequence[str]) -> None:
        """Print a result.

        :param value: the result as JSON.
        :param lines: the result as text.
        """
        self._end(done=True)
        if self._json:
            command_line.write_json(value)
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines))

    def ask(self, question: str) -> bool:
        """Ask for confirmation; returns False in a non-interactive run."""
        if self._json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        sys.stderr.write(f"{question} [yes/no] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() == "yes"

    def failed(self, text: str, status: int) -> int:
        """Print an error; returns the exit code."""
        self._end(done=False)
        return command_line.fail(text, status, as_json=self._json)

    def _end(self, *, done: bool) -> None:
        if self._bar is not None:
            self._bar.close(done=done)


def line(backup: Backup) -> str:
    """Return a backup as one line of text."""
    summary = backup.summary
    if summary is None or backup.problem:
        return f"{backup.name}  {backup.state.value.upper()}: {backup.problem}"
    notes = "  PARTIAL" if summary.partial else ""
    return f"{backup.name}  {backup.state.value}  {summary.set}  {size(summary.size)}{notes}"


def plain(backup: Backup) -> dict[str, Any]:
    """Return a backup as JSON."""
    summary = None if backup.summary is None else asdict(backup.summary)
    return {"name": backup.name, "state": backup.state.value, "problem": backup.problem, "summary": summary}


def warnings(texts: Sequence[str]) -> list[str]:
    """Return warnings as lines of text."""
    return [f"warning: {names.printable(text)}" for text in texts]


def status(found: Status) -> list[str]:
    """Return the status as lines of text."""
    lines = [f"good backups: {found.backups}, {size(found.size)}"]
    for name, source in found.sources.items():
        newest = f"{source['newest']}, {duration(source['age'])} old" if source["newest"] else "never backed up"
        lines.append(f"  {name}: {newest}{', PARTIAL' if source['partial'] else ''}")
    lines += (
        drill(Report(**{k: v for k, v in found.drill.items() if k != "result"})) if found.drill else ["no drill yet"]
    )
    return [*lines, *(f"PROBLEM: {text}" for text in found.problems)]


def drill(report: Report) -> list[str]:
    """Return a drill report as lines of text."""
    times = f"RTO {duration(report.rto)}, RPO {duration(report.rpo)}, files {duration(report.files_age)} old"
    lines = [f"drill of {report.began}: {report.result}; {times}"]
    for name, found in report.sources.items():
        counted = f", {found['rows']} rows in {found['tables']} tables" if found["tables"] else ""
        lines.append(f"  {name}: {found['backup']}{counted}")
    health = f"not checked: {report.health}" if report.health else "healthy on the restored data"
    return [*lines, f"  {report.problem}" if report.problem else f"  the panel: {health}"]


def size(count: int) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e6:.1f} MB" if count >= _MEGA else f"{count / 1e3:.1f} kB"


def duration(seconds: int) -> str:
    """Return a number of seconds as text."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds} s"
