# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Locks of backups: those of `_host.locks` with the errors of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..._host import locks
from ..errors import BusyError


@contextlib.contextmanager
def held(file: Path, wait: float, operation: str) -> Iterator[None]:
    """Hold a lock.

    :param wait: seconds to wait for another holder.
    :param operation: what a holder does, for the message.
    :raises BusyError: another process still holds it then.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(file, wait))
        except locks.LockedError as error:
            holder = error.holder or "unknown"
            raise BusyError(f"another {operation} is in progress (process {holder}); try again when it ends") from None
        yield
