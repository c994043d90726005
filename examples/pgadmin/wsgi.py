# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgAdmin 4 as a WSGI application: `wsgi:application`."""

from __future__ import annotations

from pgadmin4.pgAdmin4 import app as application  # type: ignore[import-not-found]  # installed in the release only

__all__ = ["application"]
