# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Backups that stay, whatever their age: a file beside the ledger, where only root can write."""

from __future__ import annotations

import json

from ..._host import durable
from ..errors import BackupError
from .store import Store

_FILE = "pins.json"


def read(store: Store) -> set[str]:
    """Return the names of those that stay.

    :raises BackupError: the file is none that we wrote.
    """
    file = store.state_dir / _FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name) for name in content}
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError) as error:
        # Who takes it for empty removes what somebody wanted to keep.
        raise BackupError(f"{file}: this is no list of names ({error}); mend it") from None


def set_pinned(store: Store, name: str, *, pinned: bool) -> bool:
    """Have a backup stay, or go with the others of its age; returns whether that is a change.

    :raises BackupError: there is no such backup.
    """
    pins = read(store)
    if pinned:
        with store.open(name):
            pass
    elif name not in pins:
        raise BackupError(f"{name}: it is not pinned")
    wanted = pins | {name} if pinned else pins - {name}
    if wanted == pins:
        return False
    durable.write(store.state_dir / _FILE, json.dumps(sorted(wanted)) + "\n")
    return True
