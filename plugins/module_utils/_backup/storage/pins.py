# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Pins: the names of backups that retention does not remove, in a file beside the catalog, writable by root only."""

from __future__ import annotations

import json

from ..._host import durable
from ..errors import BackupError
from .store import Store

_FILE = "pins.json"


def read(store: Store) -> set[str]:
    """Return the names of the pinned backups.

    :raises BackupError: the file is not a list of names.
    """
    file = store.state_dir / _FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name) for name in content}
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError) as error:
        # Taken for empty, it would let a prune remove pinned backups.
        raise BackupError(f"{file}: not a JSON list of names ({error}); repair it") from None


def set_pinned(store: Store, name: str, *, pinned: bool) -> bool:
    """Pin a backup, or remove its pin; return whether that is a change.

    :raises BackupError: there is no such backup, or it has no pin to remove.
    """
    pins = read(store)
    if pinned:
        with store.open(name):
            pass
    elif name not in pins:
        raise BackupError(f"{name}: the backup is not pinned")
    wanted = pins | {name} if pinned else pins - {name}
    if wanted == pins:
        return False
    durable.write(store.state_dir / _FILE, json.dumps(sorted(wanted)) + "\n")
    return True
