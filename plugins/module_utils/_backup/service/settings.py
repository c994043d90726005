# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

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
    """Where things are on this host; the names are those of the keys of ``backup.json``.

    :param host: names this installation in each manifest, for ever.
    :param panelctl: stops and starts the app where its data is exchanged; empty where none runs here.
    :param textfile_dir: where Prometheus' node_exporter looks for text files; empty for no figures.
    """

    folder: Path
    state_dir: Path
    keyring: Path
    host: str
    panelctl: Path | None = None
    textfile_dir: Path | None = None


@dataclass(frozen=True)
class Set:
    """What is backed up together, as often as the others of its kind, and kept as long.

    :param sources: names of the sources; empty for all.
    """

    sources: tuple[str, ...] = ()
    retention: Policy = field(default_factory=Policy)


_BEFORE_RESTORE = Set(retention=Policy(hourly=0, daily=7, weekly=4, monthly=0, newest=3))


@dataclass(frozen=True)
class Settings:
    """What the commands have to know of their host."""

    paths: Paths
    origins: tuple[Source, ...]
    sets: Mapping[str, Set]
    objectives: RecoveryObjectives
    offsite: Remote | None = None

    def sources_of(self, name: str) -> tuple[Source, ...]:
        """Return what belongs to a set.

        :raises BackupError: there is no such set.
        """
        if name not in self.sets:
            raise BackupError(f"there is no set {name!r}; there are {', '.join(sorted(self.sets))}")
        wanted = self.sets[name].sources
        return tuple(origin for origin in self.origins if not wanted or origin.name in wanted)

    def store(self) -> Store:
        """Open the store, with the keys that there are.

        :raises BackupError: there are none.
        """
        paths = self.paths
        return Store(paths.folder, paths.state_dir, paths.host, keyring.load(paths.keyring))


def load(path: Path) -> Settings:
    """Read the settings of this host.

    :raises BackupError: the file is missing, is no JSON, or has something that nobody knows.
    """
    try:
        content = settings.load(path)
        given = content.pop("sources", [])
        remote = content.pop("offsite", None)
        offsite = settings.build(Remote, remote, f"{path}, offsite") if remote else None
        sets = {name: _set(name, given, f"{path}, set {name}") for name, given in content.pop("sets", {}).items()}
        objectives = settings.build(RecoveryObjectives, content.pop("limits", {}), f"{path}, limits")
        paths = settings.build(Paths, content, str(path))
        origins = tuple(_origin(source, f"{path}, source {number}") for number, source in enumerate(given, 1))
    except settings.SettingsError as error:
        raise BackupError(str(error)) from error
    called = [origin.name for origin in origins]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise BackupError(f"{path}: two sources are called {', '.join(twice)}; their backups would be one")
    for name, found in sets.items():
        if unknown := sorted(set(found.sources) - set(called)):
            raise BackupError(
                f"{path}, set {name}: there is no source {', '.join(unknown)}; there are {', '.join(called)}"
            )
    sets = {names.FULL: Set(), names.BEFORE_RESTORE: _BEFORE_RESTORE, **sets}
    return Settings(paths, origins, sets, objectives, offsite)


def _set(name: str, given: Mapping[str, Any], where: str) -> Set:
    content = dict(given)
    if not names.is_set_name(name):
        raise settings.SettingsError(f"{where}: its name has other characters than small letters, digits, - and _")
    retention = settings.build(Policy, content.pop("retention", {}), f"{where}, retention")
    return replace(settings.build(Set, content, where), retention=retention)


def _origin(given: Mapping[str, Any], where: str) -> _AnySource:
    content = dict(given)
    kind = content.pop("kind", None)
    if kind not in _KINDS:
        raise settings.SettingsError(f"{where}: kind is {kind!r}, but has to be one of {', '.join(_KINDS)}")
    return settings.build(_KINDS[kind], content, where)
