# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Add the column items.done. An expand migration: the previous release keeps working."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column `done` and an index to items."""
    with op.batch_alter_table("items") as batch:
        batch.add_column(
            sa.Column("done", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false())
        )
        batch.create_index("ix_items_created_at", ["created_at"])


def downgrade() -> None:
    """Remove the column `done` and the index from items."""
    with op.batch_alter_table("items") as batch:
        batch.drop_index("ix_items_created_at")
        batch.drop_column("done")
