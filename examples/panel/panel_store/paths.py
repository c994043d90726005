# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of the panel. Every path that it writes is derived from HOME, and defined here."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

HOME = Path(os.environ.get("AAPANEL_HOME") or "/www/server/panel")
"""Hard-coded like the home of aaPanel; AAPANEL_HOME is for hosts that cannot bind it."""

RELEASE = Path(__file__).resolve().parent.parent
"""Root of this release, read-only: VERSION, FAULTS and the static files."""

DATA = HOME / "data"
LOGS = HOME / "logs"
UPLOADS = HOME / "static" / "upload"
LANGUAGE = HOME / "BTPanel" / "languages" / "settings.json"


def prepare() -> None:
    """Create the writable folders below HOME.

    :raises RuntimeError: if HOME does not exist. Creating it would hide a wrong mount behind an empty, "healthy" panel.
    """
    if not HOME.is_dir():
        raise RuntimeError(f"{HOME}: the panel's home does not exist. Bind the release there or set AAPANEL_HOME.")
    for folder in (DATA, LOGS):
        folder.mkdir(mode=0o750, exist_ok=True)
    UPLOADS.mkdir(mode=0o755, parents=True, exist_ok=True)  # nginx, which runs as another user, may serve it.


def read_or_create(path: Path, content: str, mode: int = 0o600) -> str:
    """Return the stripped text of `path`; create it with `content` first if it is missing.

    Several workers may start at once: link(2) succeeds for one of them, and no reader sees a partial file.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    return path.read_text(encoding="utf-8").strip()
