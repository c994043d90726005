# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alembic's environment: the database and its tables."""

from __future__ import annotations

from logging.config import fileConfig

from alembic import context
from panel_store import database, paths

if context.config.config_file_name:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def run() -> None:
    """Migrate the database of the app; with --sql, print the statements instead."""
    if context.is_offline_mode():
        context.configure(url=database.url(), target_metadata=database.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    paths.prepare()
    with database.connect(migrating=True).connect() as connection:
        # SQLite alters a table by copying it; batch mode does this, and works for all databases.
        context.configure(connection=connection, target_metadata=database.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


run()
