# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asking."""

from __future__ import annotations

import ipaddress

from flask import request


def address() -> str | None:
    """The client's IP address, or None if nobody told us.

    X-Real-IP counts only when the peer is this host's own proxy: behind a unix socket REMOTE_ADDR is empty, on TCP it
    is the loopback address. Anyone else could write what they like into that header.
    """
    peer = request.remote_addr or ""
    if peer and not _is_loopback(peer):
        return peer
    claimed = request.headers.get("X-Real-IP", "").strip()
    return claimed if _is_address(claimed) else (peer or None)


def has_browser() -> bool:
    """Every browser calls itself Mozilla; scanners and scripts mostly do not bother."""
    return request.headers.get("User-Agent", "").startswith("Mozilla/")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback
