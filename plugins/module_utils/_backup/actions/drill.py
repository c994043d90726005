# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Prove that the newest backups can be restored, from archive and key alone, while the panel keeps serving.

The duration of a drill is the recovery time (RTO); the age of the restored data is the recovery point (RPO). Reports
are signed.
"""

from __future__ import annotations

import hmac
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..._host import durable
from ..archive import canonical, keyring, names
from ..archive.keyring import Keyring
from ..errors import BackupError, NotAuthenticError
from ..progress import SILENT, Progress
from ..sources.directory import Files
from ..sources.source import Source
from ..sources.sqlite import Sqlite
from ..storage.store import Store
from . import restore
from .app import App
from .restore import Extracted

_STAGING = "drill"
_REPORTS = "drills"
PASSED, FAILED = "passed", "failed"


@dataclass(frozen=True)
class RecoveryObjectives:
    """The limits that a drill and the status check, in seconds. A value that reaches its limit fails.

    :param rto_max: time from the beginning of a drill until the panel is healthy on the restored data.
    :param rpo_max: age of the newest backup of each database.
    :param files_max: age of the newest backup of each folder.
    :param drill_max: age of the newest drill; only the status checks it.
    """

    rto_max: int = 900
    rpo_max: int = 3600
    files_max: int = 27 * 3600
    drill_max: int = 27 * 3600


@dataclass(frozen=True)
class SourceResult:
    """The findings of a drill about one source.

    :param age: seconds between its backup and the drill.
    :param canary: the canary that the backup contains; empty if none was written.
    """

    backup: str
    age: int
    seconds: int
    tables: int
    rows: int
    canary: str


@dataclass(frozen=True)
class Report:
    """The result of a drill. All durations are in whole seconds, rounded up.

    :param health: why the panel's health was not checked; empty if the panel was healthy on the restored data.
    :param problem: why the drill failed; empty if it passed.
    """

    host: str
    began: str
    rto: int = 0
    rpo: int = 0
    files_age: int = 0
    sources: dict[str, Any] = field(default_factory=dict)
    health: str = ""
    problem: str = ""

    @property
    def result(self) -> str:
        """PASSED or FAILED."""
        return FAILED if self.problem else PASSED


def drill(
    store: Store,
    sources: Sequence[Source],
    app: App,
    objectives: RecoveryObjectives,
    *,
    report_progress: Progress = SILENT,
) -> Report:
    """Run a drill and append its report to the log. The caller holds `restore.scratch_lock`.

    :returns: the report, which also names the problem of a drill that failed.
    :raises BackupError: an interrupted restore is not settled, or the report cannot be written.
    """
    if restore.is_interrupted(store):
        raise BackupError("a restore was interrupted: run `panelctl backup settle` first")
    report = _drill(store, sources, app, report_progress)
    report = replace(report, problem=report.problem or _missed_objectives(report, objectives))
    _append_report(store, report)
    return report


def read_reports(store: Store) -> list[Report]:
    """Return all reports, oldest first.

    :raises NotAuthenticError: a report is not what was signed.
    """
    file = store.state_dir / _REPORTS
    if not file.exists():
        return []
    # A last line without a newline was not written completely.
    lines = file.read_bytes().split(b"\n")[:-1]
    return [_parse_report(line, store.keys, f"{file}, line {n}") for n, line in enumerate(lines, 1)]


def _drill(store: Store, sources: Sequence[Source], app: App, report_progress: Progress) -> Report:
    now, started = datetime.now(timezone.utc), time.monotonic()
    report = Report(store.host, names.timestamp(now))
    results: dict[str, Any] = {}
    try:
        plan = restore.plan(store, sources)
        known = [source.name for group in plan.values() for source in group]
        chosen = [source for source in sources if source.name in known]
        with _staging_folder(store, chosen) as staging:
            found = restore.verify_and_extract(store, plan, dict.fromkeys(known, staging), report_progress)
            for source in chosen:
                report_progress(f"loading {source.name}")
                began = time.monotonic()
                source.load(found[source.name].record, staging)
                results[source.name] = asdict(_source_result(found[source.name], now, began))
            _place_sqlite_files(chosen, found, staging)
            report_progress("checking the panel's health on the restored data")
            health = app.rehearse({source.database: source.scratch for source in chosen if source.scratch})
        if future := {found[s.name].backup.name for s in chosen if names.is_in_future(results[s.name]["age"])}:
            raise BackupError(
                f"{', '.join(sorted(future))}: from the future: the clock is wrong now, or was wrong then"
            )
        missing = [s.name for s in sources if s.in_place and s not in chosen and (not s.optional or s.exists())]
    except BackupError as error:
        return replace(report, sources=results, rto=_elapsed(started), problem=str(error))
    except OSError as error:
        problem = f"{error.filename or store.state_dir}: {error.strerror}"
        return replace(report, sources=results, rto=_elapsed(started), problem=problem)
    ages = {kind: [results[s.name]["age"] for s in chosen if s.is_database is kind] for kind in (True, False)}
    return replace(
        report,
        rto=_elapsed(started),
        rpo=max([0, *ages[True]]),
        files_age=max([0, *ages[False]]),
        sources=results,
        health=health,
        problem="; ".join(_unproven(results, missing)),
    )


def _unproven(results: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> Iterator[str]:
    """Yield what the drill could not prove, and why."""
    if missing:
        yield f"no good backup contains {', '.join(missing)}"
    for name, found in results.items():
        if not found["canary"]:
            backup = found["backup"]
            yield f"{name}: {backup} has no canary; its warnings in `panelctl backup list --json` tell why"


@contextmanager
def _staging_folder(store: Store, chosen: Sequence[Source]) -> Iterator[Path]:
    """Create the folder for the restored data; remove it, and what was loaded into databases, at the end."""
    staging = store.state_dir / _STAGING
    if staging.exists():
        # Left by a drill that was killed.
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        try:
            shutil.rmtree(staging)
        finally:
            for source in chosen:
                source.discard_loaded()


def _place_sqlite_files(chosen: Sequence[Source], found: Mapping[str, Extracted], staging: Path) -> None:
    """Move restored SQLite files into the restored folders, where the panel looks for them."""
    folders = [source for source in chosen if isinstance(source, Files)]
    for database in chosen:
        if not isinstance(database, Sqlite):
            continue
        for folder in folders:
            if database.path.is_relative_to(folder.path):
                target = staging / found[folder.name].record.member / database.path.relative_to(folder.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                (staging / found[database.name].record.member).rename(target)
                break


def _missed_objectives(report: Report, objectives: RecoveryObjectives) -> str:
    checks = (
        ("RTO", report.rto, objectives.rto_max),
        ("RPO", report.rpo, objectives.rpo_max),
        ("the age of the files", report.files_age, objectives.files_max),
    )
    return "; ".join(
        f"{what} is {value} s, but must be below {most} s" for what, value, most in checks if value >= most
    )


def _source_result(found: Extracted, now: datetime, began: float) -> SourceResult:
    record, backup = found
    age = math.ceil((now - names.parse_timestamp(backup.began)).total_seconds())
    return SourceResult(backup.name, age, _elapsed(began), len(record.rows), sum(record.rows.values()), record.canary)


def _elapsed(started: float) -> int:
    return math.ceil(time.monotonic() - started)


def _append_report(store: Store, report: Report) -> None:
    text = canonical.encode({"format": 1, **asdict(report)})
    line = b"%s %s %s\n" % (text, store.keys.signer.encode("ascii"), _sign(text, store.keys, store.keys.signer))
    path = store.state_dir / _REPORTS
    try:
        with path.open("a+b") as file:
            path.chmod(0o600)
            file.seek(0)
            # Cut off the incomplete last line of a drill that was killed.
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        durable.sync(store.state_dir)
    except OSError as error:
        raise BackupError(f"{path}: cannot write the drill's report: {error.strerror}") from error


def _parse_report(line: bytes, keys: Keyring, where: str) -> Report:
    try:
        text, key, signature = line.rsplit(b" ", 2)
    except ValueError:
        raise NotAuthenticError(f"{where}: not a drill report") from None
    if not hmac.compare_digest(_sign(text, keys, key.decode("ascii", "replace")), signature):
        raise NotAuthenticError(f"{where}: the signature of this report is wrong")
    content = canonical.decode(text)
    if content.pop("format") != 1:
        raise NotAuthenticError(f"{where}: this report has another format")
    return Report(**content)


def _sign(text: bytes, keys: Keyring, key: str) -> bytes:
    mac = keys.mac(keyring.DRILL, key)
    mac.update(text)
    return mac.hexdigest().encode("ascii")
