# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WebSocket. Like those of aaPanel it is not below /ws/: a proxy must rely on the Upgrade header."""

from __future__ import annotations

from flask import Flask
from flask_sock import Sock  # type: ignore[import-untyped]  # publishes no types
from simple_websocket import Server  # type: ignore[import-untyped]  # as above


def attach(app: Flask) -> None:
    """Serve an echo of text and binary messages at /ws_panel."""
    sock = Sock(app)

    @sock.route("/ws_panel")  # type: ignore[untyped-decorator]  # as above
    def echo(connection: Server) -> None:
        while True:
            connection.send(connection.receive())
