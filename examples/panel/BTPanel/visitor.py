# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of the current request."""

from __future__ import annotations

import ipaddress

from flask import request


def address() -> str | None:
    """Return the client's IP address, or None if it is unknown.

    X-Real-IP is trusted only from a proxy on this host, because other clients can forge it. Behind a unix socket
    REMOTE_ADDR is empty; over TCP it is the loopback address.
    """
    peer = request.remote_addr or ""
    if peer and not _is_loopback(peer):
        return peer
    claimed = request.headers.get("X-Real-IP", "").strip()
    return claimed if _is_address(claimed) else (peer or None)


def has_browser() -> bool:
    """Return whether the client claims to be a browser. All browsers send Mozilla; most scanners and scripts do not."""
    return request.headers.get("User-Agent", "").startswith("Mozilla/")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback
