# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _settings
from . import keyring
from .errors import BackupError
from .mysql import MYSQL, Mysql
from .postgresql import POSTGRESQL, Postgresql
from .retention import Policy
from .sources import FILES, SQLITE, Files, Origin, Sqlite
from .store import Store

_Known = Files | Sqlite | Postgresql | Mysql
_KINDS: dict[str, type[_Known]] = {FILES: Files, SQLITE: Sqlite, POSTGRESQL: Postgresql, MYSQL: Mysql}


@dataclass(frozen=True)
class Paths:
    """Where things are on this host; the names are those of the keys of ``backup.json``.

    :param host: names this installation in each manifest, for ever.
    """

    folder: Path
    state_dir: Path
    keyring: Path
    host: str


@dataclass(frozen=True)
class Settings:
    """What the commands have to know of their host."""

    paths: Paths
    origins: tuple[Origin, ...]
    retention: Policy

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
        content = _settings.load(path)
        given = content.pop("sources", [])
        retention = _settings.build(Policy, content.pop("retention", {}), f"{path}, retention")
        paths = _settings.build(Paths, content, str(path))
        origins = tuple(_origin(source, f"{path}, source {number}") for number, source in enumerate(given, 1))
    except _settings.SettingsError as error:
        raise BackupError(str(error)) from error
    names = [origin.name for origin in origins]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BackupError(f"{path}: two sources are called {', '.join(twice)}; their backups would be one")
    return Settings(paths, origins, retention)


def _origin(given: Mapping[str, Any], where: str) -> _Known:
    content = dict(given)
    kind = content.pop("kind", None)
    if kind not in _KINDS:
        raise _settings.SettingsError(f"{where}: kind is {kind!r}, but has to be one of {', '.join(_KINDS)}")
    return _settings.build(_KINDS[kind], content, where)
