# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Prove that the newest backups restore, from archive and key alone, beside the panel that serves on.

What it took is the recovery time (RTO), and the age of the data the recovery point (RPO). The report is signed.
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
    """What a drill may come to, in seconds.

    :param rto_max: from its beginning until the panel is healthy on what was restored.
    :param rpo_max: age of the newest backup of each database.
    :param files_max: age of the newest backup of each folder.
    :param drill_max: age of the newest drill itself, by which the status goes.
    """

    rto_max: int = 900
    rpo_max: int = 3600
    files_max: int = 27 * 3600
    drill_max: int = 27 * 3600


@dataclass(frozen=True)
class SourceResult:
    """What was found of a source.

    :param age: seconds from its backup to the drill.
    :param canary: the word that was written before the backup, and was in it; empty where none was written.
    """

    backup: str
    age: int
    seconds: int
    tables: int
    rows: int
    canary: str


@dataclass(frozen=True)
class Report:
    """How a drill went. All durations are in whole seconds, rounded up.

    :param health: empty where the panel was healthy on what was restored; otherwise why it was not asked.
    :param problem: why it failed; empty where it passed.
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
    origins: Sequence[Source],
    app: App,
    objectives: RecoveryObjectives,
    *,
    report_progress: Progress = SILENT,
) -> Report:
    """Drill, and write the report down, for who keeps others away; see `restore.scratch`.

    :raises BackupError: there is nothing to drill with, or the report cannot be written. What a drill finds is in the
        report.
    """
    if restore.is_interrupted(store):
        raise BackupError("a restore died, and what it left is not settled: `panelctl backup settle` first")
    report = _drill(store, origins, app, report_progress)
    report = replace(report, problem=report.problem or _missed_objectives(report, objectives))
    _append_report(store, report)
    return report


def read_reports(store: Store) -> list[Report]:
    """Return the reports that there are, oldest first.

    :raises NotAuthenticError: one is not what was signed.
    """
    file = store.state_dir / _REPORTS
    if not file.exists():
        return []
    # What is behind the last end of a line was never finished.
    lines = file.read_bytes().split(b"\n")[:-1]
    return [_parse_report(line, store.keys, f"{file}, line {n}") for n, line in enumerate(lines, 1)]


def _drill(store: Store, origins: Sequence[Source], app: App, report_progress: Progress) -> Report:
    now, started = datetime.now(timezone.utc), time.monotonic()
    report = Report(store.host, names.timestamp(now))
    sources: dict[str, Any] = {}
    try:
        wanted = restore.plan(store, origins)
        known = [origin.name for group in wanted.values() for origin in group]
        chosen = [origin for origin in origins if origin.name in known]
        with _staging_folder(store, chosen) as staging:
            found = restore.verify_and_extract(store, wanted, dict.fromkeys(known, staging), report_progress)
            for origin in chosen:
                report_progress(f"loading {origin.name}")
                began = time.monotonic()
                origin.load(found[origin.name].source, staging)
                sources[origin.name] = asdict(_source_result(found[origin.name], now, began))
            _place_sqlite_files(chosen, found, staging)
            report_progress("asking the panel for its health on it")
            health = app.rehearse({origin.database: origin.scratch for origin in chosen if origin.scratch})
        if future := {found[o.name].backup.name for o in chosen if names.is_in_future(sources[o.name]["age"])}:
            raise BackupError(f"{', '.join(sorted(future))}: from the future: the clock is wrong now, or it was then")
        missing = [o.name for o in origins if o.in_place and o not in chosen and (not o.optional or o.exists())]
    except BackupError as error:
        return replace(report, sources=sources, rto=_elapsed(started), problem=str(error))
    except OSError as error:
        problem = f"{error.filename or store.state_dir}: {error.strerror}"
        return replace(report, sources=sources, rto=_elapsed(started), problem=problem)
    ages = {kind: [sources[o.name]["age"] for o in chosen if o.is_database is kind] for kind in (True, False)}
    return replace(
        report,
        rto=_elapsed(started),
        rpo=max([0, *ages[True]]),
        files_age=max([0, *ages[False]]),
        sources=sources,
        health=health,
        problem="; ".join(_unproven(sources, missing)),
    )


def _unproven(sources: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> Iterator[str]:
    """Give what a drill should have proven, and had nothing to."""
    if missing:
        yield f"no good backup has {', '.join(missing)}"
    for name, found in sources.items():
        if not found["canary"]:
            backup = found["backup"]
            yield f"{name}: {backup} has no canary to look for; its warnings in `panelctl backup list --json` say why"


@contextmanager
def _staging_folder(store: Store, chosen: Sequence[Source]) -> Iterator[Path]:
    """Give a fresh folder, and leave nothing behind."""
    staging = store.state_dir / _STAGING
    if staging.exists():
        # Of a drill that was killed.
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        try:
            shutil.rmtree(staging)
        finally:
            for origin in chosen:
                origin.discard_loaded()


def _place_sqlite_files(chosen: Sequence[Source], found: dict[str, Extracted], staging: Path) -> None:
    """Put databases that are files where the panel looks for them: into the folder that they were backed up beside."""
    folders = [origin for origin in chosen if isinstance(origin, Files)]
    for database in chosen:
        if not isinstance(database, Sqlite):
            continue
        for folder in folders:
            if database.path.is_relative_to(folder.path):
                target = staging / found[folder.name].source.member / database.path.relative_to(folder.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                (staging / found[database.name].source.member).rename(target)
                break


def _missed_objectives(report: Report, objectives: RecoveryObjectives) -> str:
    checks = (
        ("RTO", report.rto, objectives.rto_max),
        ("RPO", report.rpo, objectives.rpo_max),
        ("the age of the files", report.files_age, objectives.files_max),
    )
    return "; ".join(
        f"{what} is {value} s, and has to be below {most}" for what, value, most in checks if value >= most
    )


def _source_result(found: Extracted, now: datetime, began: float) -> SourceResult:
    source, backup = found
    age = math.ceil((now - names.parse_timestamp(backup.began)).total_seconds())
    return SourceResult(backup.name, age, _elapsed(began), len(source.rows), sum(source.rows.values()), source.canary)


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
            # Without what one that died has left of its line.
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        durable.sync(store.state_dir)
    except OSError as error:
        raise BackupError(f"{path}: the report cannot be written: {error.strerror}") from error


def _parse_report(line: bytes, keys: Keyring, where: str) -> Report:
    try:
        text, key, signature = line.rsplit(b" ", 2)
    except ValueError:
        raise NotAuthenticError(f"{where}: this is no report") from None
    if not hmac.compare_digest(_sign(text, keys, key.decode("ascii", "replace")), signature):
        raise NotAuthenticError(f"{where}: the signature of this report is wrong")
    content = canonical.decode(text)
    if content.pop("format") != 1:
        raise NotAuthenticError(f"{where}: this is a report of another format")
    return Report(**content)


def _sign(text: bytes, keys: Keyring, key: str) -> bytes:
    mac = keys.mac(keyring.DRILL, key)
    mac.update(text)
    return mac.hexdigest().encode("ascii")
