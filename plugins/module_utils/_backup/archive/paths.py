# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Checks of the paths in an archive."""

from __future__ import annotations

import os

from ..errors import NotAuthenticError

DEPTH_MAX = 128  # nested folders
_PATH_MAX = 4096  # bytes; Linux, path_resolution(7)


def check_path(path: str) -> None:
    """Check that a path stays below the folder that it is restored to.

    :raises NotAuthenticError: it may not, or is too long.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise NotAuthenticError(f"{path!r} is not a plain relative path: empty, '.', '..' and NUL parts are refused")
    if len(parts) > DEPTH_MAX or len(os.fsencode(path)) > _PATH_MAX:
        raise NotAuthenticError(f"the path {path[:60]!r}… is too long")
