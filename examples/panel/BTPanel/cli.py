# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `flask --app BTPanel create-admin`."""

from __future__ import annotations

import click
from flask import Flask
from panel_store import paths

from . import auth


def attach(app: Flask) -> None:
    """Add the panel's commands to `flask`."""

    @app.cli.command("create-admin")
    def create_admin() -> None:
        """Create the first user, as the first login would, and print where its password is."""
        name = auth.ensure_admin()
        where = (
            "PANEL_ADMIN_PASSWORD" if name and not (paths.DATA / "default.pl").exists() else paths.DATA / "default.pl"
        )
        click.echo(f"Created {name}; the password is in {where}." if name else "There is a user already.")
