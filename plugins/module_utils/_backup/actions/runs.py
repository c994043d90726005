# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The results of the last runs, for `panelctl backup status` and for Prometheus."""

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
_LOCK_WAIT = 10.0  # seconds to wait for another run that records its result, which takes milliseconds


@dataclass(frozen=True)
class LastRuns:
    """The last runs of one kind. Times are seconds since the epoch; 0 means never.

    :param failures: how many runs failed, ever.
    :param seconds: duration of the last successful run.
    :param size: bytes that the last successful run created.
    :param problem: why the last run failed; empty if it succeeded.
    """

    last_success: int = 0
    last_failure: int = 0
    failures: int = 0
    seconds: float = 0.0
    size: int = 0
    problem: str = ""


class RunHistory:
    """The file that the results of runs are recorded in.

    :param textfile_dir: the folder that Prometheus' node_exporter reads text files from; None for no metrics.
    """

    def __init__(self, state_dir: Path, textfile_dir: Path | None = None) -> None:
        self._state_dir = state_dir
        self._textfile_dir = textfile_dir

    def read(self) -> dict[str, LastRuns]:
        """Return the last runs by kind, such as `create full` and `drill`."""
        try:
            content = json.loads((self._state_dir / _FILE).read_text(encoding="utf-8"))
            return {kind: LastRuns(**run) for kind, run in content.items()}
        except (OSError, ValueError, TypeError):
            # A damaged history must not stop a backup, because no decision depends on it.
            return {}

    def record(self, kind: str, problem: str = "", *, seconds: float = 0.0, size: int = 0) -> None:
        """Record the result of a run; an error in this does not fail the run.

        :param problem: why the run failed; empty if it succeeded.
        """
        now = int(time.time())
        with contextlib.suppress(OSError), locks.held(self._state_dir / "runs.lock", _LOCK_WAIT, "run"):
            # Left by a run that was killed here. The lock excludes a concurrent writer.
            for leftover in self._state_dir.glob(f".{_FILE}.*"):
                leftover.unlink()
            runs = self.read()
            last = runs.get(kind, LastRuns())
            if problem:
                runs[kind] = replace(last, last_failure=now, failures=last.failures + 1, problem=problem)
            else:
                runs[kind] = replace(last, last_success=now, seconds=round(seconds, 3), size=size, problem="")
            content = {name: asdict(run) for name, run in runs.items()}
            durable.write(self._state_dir / _FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def export(self, last_drill: Report | None) -> None:
        """Write the metrics for the textfile collector of Prometheus' node_exporter, if it is configured."""
        if self._textfile_dir is not None:
            with contextlib.suppress(OSError):
                durable.write(self._textfile_dir / _TEXTFILE, textfile(self.read(), last_drill), 0o644)


def textfile(runs: Mapping[str, LastRuns], last_drill: Report | None) -> str:
    """Return the metrics in the text format of Prometheus.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines: list[str] = []
    for name, kind, text in (
        (
            "last_success_timestamp_seconds",
            "gauge",
            "End of the last successful run, in seconds since the epoch; 0 if there was none.",
        ),
        (
            "last_failure_timestamp_seconds",
            "gauge",
            "End of the last failed run, in seconds since the epoch; 0 if there was none.",
        ),
        ("failures_total", "counter", "Number of failed runs."),
        ("duration_seconds", "gauge", "Duration of the last successful run."),
        ("size_bytes", "gauge", "Bytes that the last successful run created."),
    ):
        lines += [f"# HELP aapanel_backup_{name} {text}", f"# TYPE aapanel_backup_{name} {kind}"]
        lines += [f"aapanel_backup_{name}{_labels(run)} {_value(last, name)}" for run, last in sorted(runs.items())]
    if last_drill is not None:
        for name, value, text in (
            ("rto_seconds", last_drill.rto, "Recovery time of the last drill, until the panel was healthy."),
            ("rpo_seconds", last_drill.rpo, "Age of the database backups that the last drill restored."),
            ("passed", int(not last_drill.problem), "1 if the last drill passed, else 0."),
        ):
            metric = f"aapanel_backup_drill_{name}"
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    return "\n".join(lines) + "\n"


def _labels(run: str) -> str:
    kind, _space, set_name = run.partition(" ")
    return f'{{run="{kind}",set="{set_name}"}}'


def _value(run: LastRuns, name: str) -> float:
    return {
        "last_success_timestamp_seconds": run.last_success,
        "last_failure_timestamp_seconds": run.last_failure,
        "failures_total": run.failures,
        "duration_seconds": run.seconds,
        "size_bytes": run.size,
    }[name]
