# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""How the last runs went, for `panelctl backup status` and for Prometheus."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..._host import durable
from ..storage import locks
from .drill import Report

_FILE = "runs.json"
_TEXTFILE = "aapanel_backup.prom"
_LOCK_WAIT = 10.0  # seconds for who writes it down too, which takes milliseconds


@dataclass(frozen=True)
class LastRuns:
    """The last ones of a kind. Times are seconds since the epoch; 0 for never.

    :param size: bytes of what was made, by the last one that was good.
    :param seconds: what that took.
    """

    last_success: int = 0
    last_failure: int = 0
    failures: int = 0
    seconds: float = 0.0
    size: int = 0
    problem: str = ""


class RunHistory:
    """The file in which they are noted."""

    def __init__(self, state_dir: Path, textfile_dir: Path | None = None) -> None:
        self._state_dir = state_dir
        self._textfile_dir = textfile_dir

    def read(self) -> dict[str, LastRuns]:
        """Return the last runs by their kinds, such as `create full` and `drill`."""
        try:
            content = json.loads((self._state_dir / _FILE).read_text(encoding="utf-8"))
            return {kind: LastRuns(**run) for kind, run in content.items()}
        except (OSError, ValueError, TypeError):
            # It tells of runs, and is not what anything is decided by.
            return {}

    def record(self, kind: str, problem: str = "", *, seconds: float = 0.0, size: int = 0) -> None:
        """Write down how a run went; nothing that goes wrong here makes it another one.

        :param problem: why it failed; empty where it did not.
        """
        now = int(time.time())
        with contextlib.suppress(OSError), locks.held(self._state_dir / "runs.lock", _LOCK_WAIT, "run"):
            # Of one that was killed at this; nobody else is at it now.
            for left in self._state_dir.glob(f".{_FILE}.*"):
                left.unlink()
            runs = self.read()
            last = runs.get(kind, LastRuns())
            if problem:
                runs[kind] = replace(last, last_failure=now, failures=last.failures + 1, problem=problem)
            else:
                runs[kind] = replace(last, last_success=now, seconds=round(seconds, 3), size=size, problem="")
            content = {name: asdict(run) for name, run in runs.items()}
            durable.write(self._state_dir / _FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def export(self, last_drill: Report | None) -> None:
        """Write the figures for the textfile collector of Prometheus' node_exporter, where there is one."""
        if self._textfile_dir is not None:
            with contextlib.suppress(OSError):
                durable.write(self._textfile_dir / _TEXTFILE, textfile(self.read(), last_drill), 0o644)


def textfile(runs: Mapping[str, LastRuns], last_drill: Report | None) -> str:
    """Render the figures. https://prometheus.io/docs/instrumenting/exposition_formats/"""
    lines: list[str] = []
    for name, kind, text in (
        ("last_success_timestamp_seconds", "gauge", "When the last good run ended; 0 for never."),
        ("last_failure_timestamp_seconds", "gauge", "When the last failed run ended; 0 for never."),
        ("failures_total", "counter", "Runs that failed."),
        ("duration_seconds", "gauge", "What the last good run took."),
        ("size_bytes", "gauge", "Size of what the last good run made."),
    ):
        lines += [f"# HELP aapanel_backup_{name} {text}", f"# TYPE aapanel_backup_{name} {kind}"]
        lines += [f"aapanel_backup_{name}{_labels(run)} {_value(last, name)}" for run, last in sorted(runs.items())]
    if last_drill is not None:
        for name, value, text in (
            ("rto_seconds", last_drill.rto, "What the last drill took, until the panel was healthy."),
            ("rpo_seconds", last_drill.rpo, "Age of the data that the last drill restored."),
            ("passed", int(not last_drill.problem), "Whether the last drill passed."),
        ):
            metric = f"aapanel_backup_drill_{name}"
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    return "\n".join(lines) + "\n"


def _labels(run: str) -> str:
    kind, _, of_set = run.partition(" ")
    return f'{{run="{kind}",set="{of_set}"}}'


def _value(run: LastRuns, name: str) -> float:
    return {
        "last_success_timestamp_seconds": run.last_success,
        "last_failure_timestamp_seconds": run.last_failure,
        "failures_total": run.failures,
        "duration_seconds": run.seconds,
        "size_bytes": run.size,
    }[name]
