# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The settings of backups on this host, read from ``backup.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..._host import settings
from ..actions.drill import RecoveryObjectives
from ..archive import keyring, names
from ..errors import BackupError
from ..offsite.remote import Remote
from ..sources.directory import FILES, Files
from ..sources.mysql import MYSQL, Mysql
from ..sources.postgresql import POSTGRESQL, Postgresql
from ..sources.source import Source
from ..sources.sqlite import SQLITE, Sqlite
from ..storage.retention import Policy
from ..storage.store import Store

_AnySource = Files | Sqlite | Postgresql | Mysql
_KINDS: dict[str, type[_AnySource]] = {FILES: Files, SQLITE: Sqlite, POSTGRESQL: Postgresql, MYSQL: Mysql}


@dataclass(frozen=True)
class Paths:
    """Paths on this host. The fields are keys of ``backup.json``.

    :param host: the name of this installation in each manifest; it must never change.
    :param panelctl: the program that stops and starts the panel for a restore; empty if no panel runs here.
    :param textfile_dir: where Prometheus' node_exporter reads text files; empty for no metrics.
    """

    folder: Path
    state_dir: Path
    keyring: Path
    host: str
    panelctl: Path | None = None
    textfile_dir: Path | None = None


@dataclass(frozen=True)
class Set:
    """A backup set: sources that are backed up together, and their retention.

    :param sources: names of the sources; empty for all.
    """

    sources: tuple[str, ...] = ()
    retention: Policy = field(default_factory=Policy)


_BEFORE_RESTORE = Set(retention=Policy(hourly=0, daily=7, weekly=4, monthly=0, newest=3))


@dataclass(frozen=True)
class Settings:
    """The settings of backups on a host."""

    paths: Paths
    sources: tuple[Source, ...]
    sets: Mapping[str, Set]
    objectives: RecoveryObjectives
    offsite: Remote | None = None

    def sources_of(self, name: str) -> tuple[Source, ...]:
        """Return the sources of a set.

        :raises BackupError: there is no such set.
        """
        if name not in self.sets:
            raise BackupError(f"there is no set {name!r}; the sets are {', '.join(sorted(self.sets))}")
        members = self.sets[name].sources
        return tuple(source for source in self.sources if not members or source.name in members)

    def store(self) -> Store:
        """Return the store, with the current keyring.

        :raises BackupError: there is no keyring.
        """
        paths = self.paths
        return Store(paths.folder, paths.state_dir, paths.host, keyring.load(paths.keyring))


def load(path: Path) -> Settings:
    """Read the settings of this host.

    :raises BackupError: the file is missing or not JSON, or a key or value is wrong.
    """
    try:
        content = settings.load(path)
        given = content.pop("sources", [])
        remote = content.pop("offsite", None)
        offsite = settings.build(Remote, remote, f"{path}, offsite") if remote else None
        sets = {name: _set(name, given, f"{path}, set {name}") for name, given in content.pop("sets", {}).items()}
        objectives = settings.build(RecoveryObjectives, content.pop("limits", {}), f"{path}, limits")
        paths = settings.build(Paths, content, str(path))
        sources = tuple(_source(source, f"{path}, source {number}") for number, source in enumerate(given, 1))
    except settings.SettingsError as error:
        raise BackupError(str(error)) from error
    known = [source.name for source in sources]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise BackupError(f"{path}: two sources have the name {', '.join(twice)}; each source needs its own")
    for name, found in sets.items():
        if unknown := sorted(set(found.sources) - set(known)):
            raise BackupError(
                f"{path}, set {name}: there is no source {', '.join(unknown)}; the sources are {', '.join(known)}"
            )
    sets = {names.FULL: Set(), names.BEFORE_RESTORE: _BEFORE_RESTORE, **sets}
    return Settings(paths, sources, sets, objectives, offsite)


def _set(name: str, given: Mapping[str, Any], where: str) -> Set:
    content = dict(given)
    if not names.is_set_name(name):
        raise settings.SettingsError(f"{where}: a set's name consists of lower-case letters, digits, - and _")
    retention = settings.build(Policy, content.pop("retention", {}), f"{where}, retention")
    return replace(settings.build(Set, content, where), retention=retention)


def _source(given: Mapping[str, Any], where: str) -> _AnySource:
    content = dict(given)
    kind = content.pop("kind", None)
    if kind not in _KINDS:
        raise settings.SettingsError(f"{where}: kind is {kind!r}, but must be one of {', '.join(_KINDS)}")
    return settings.build(_KINDS[kind], content, where)
