# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Durable changes of files and links: each one becomes visible by one rename(2)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_link(link: Path, target: str) -> None:
    """Replace a symlink by one rename(2), so that it exists at any moment.

    Durable after `sync` of its folder.
    """
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.rename(link)


def write(file: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file durably: temporary file, fsync, rename, fsync of the folder."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    # Another account may own the folder, and have placed a link there.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)


def make(folder: Path, mode: int = 0o700) -> None:
    """Create a folder durably, with its parents, unless it exists."""
    if not folder.parent.exists():
        make(folder.parent, 0o755)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        return
    sync(folder.parent)


def sync(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
