# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML pages."""

from __future__ import annotations

import os
import platform
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify, render_template, session
from panel_store import database, paths
from sqlalchemy.exc import SQLAlchemyError

from . import auth, store

blueprint = Blueprint("pages", __name__)


def version() -> dict[str, Any]:
    """Return the VERSION of the release, and the release ID and slot from the environment."""
    return {
        "name": "panel",
        "version": (paths.RELEASE / "VERSION").read_text(encoding="utf-8").strip(),
        "release": os.environ.get("AAPANEL_RELEASE"),
        "slot": os.environ.get("AAPANEL_SLOT"),
        "python": platform.python_version(),
        "pid": os.getpid(),
    }


def _recent() -> list[dict[str, Any]] | None:
    items = database.items
    try:
        with store.engine().connect() as connection:
            rows = connection.execute(sa.select(items).order_by(items.c.id.desc()).limit(20)).all()
    except SQLAlchemyError as error:
        current_app.logger.error("database: %s", type(error).__name__)
        return None
    return [database.as_json(row) for row in rows]


@blueprint.get("/")
def landing() -> str:
    """Serve the front page, which reports if the database or Redis is down."""
    return render_template("landing.html", version=version(), items=_recent(), visits=store.count_visit())


@blueprint.get("/panel")
@auth.signed_in
def panel() -> Response:
    """Serve the page for signed-in users: items, upload, WebSocket."""
    response = Response(render_template("panel.html", version=version(), items=_recent(), user=session["user"]))
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/version")
def show_version() -> Response:
    """Serve `version` as JSON, for scripts."""
    response = jsonify(version())
    response.headers["Cache-Control"] = "no-store"
    return response
