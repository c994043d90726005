# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON API of items, background jobs and the language. Reading is public; writing requires `auth.writer`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, abort, jsonify, request
from panel_store import database
from sqlalchemy.engine import Row

from . import auth, jobs, language, store, visitor

blueprint = Blueprint("api", __name__, url_prefix="/api")
Answer = tuple[Response, int]
TITLE = 200
PAGE = 100


@blueprint.get("/items")
def list_items() -> Response:
    """List the newest items first, `?limit=` of them (default 20, at most 100)."""
    limit = min(request.args.get("limit", 20, int), PAGE)
    with store.engine().connect() as connection:
        rows = connection.execute(sa.select(database.items).order_by(database.items.c.id.desc()).limit(limit)).all()
    return jsonify([database.as_json(row) for row in rows])


@blueprint.post("/items")
@auth.writer
def create_item() -> Answer:
    """Create an item from `title` and optionally `note` and `done`; 201 with the item."""
    values = _fields(required=True)
    with store.engine().begin() as connection:
        key = database.insert(connection, database.items, values)
    return jsonify(database.as_json(_item(key))), 201


@blueprint.get("/items/<int:key>")
def show_item(key: int) -> Response:
    """Show an item; 404 if it does not exist."""
    return jsonify(database.as_json(_item(key)))


@blueprint.route("/items/<int:key>", methods=["PUT", "PATCH"])
@auth.writer
def change_item(key: int) -> Response:
    """Change the given fields of an item."""
    values = _fields(required=False)
    _item(key)
    if values:
        with store.engine().begin() as connection:
            connection.execute(sa.update(database.items).where(database.items.c.id == key), values)
    return jsonify(database.as_json(_item(key)))


@blueprint.delete("/items/<int:key>")
@auth.writer
def delete_item(key: int) -> Answer:
    """Delete an item; 204, or 404 if it does not exist."""
    with store.engine().begin() as connection:
        if not connection.execute(sa.delete(database.items).where(database.items.c.id == key)).rowcount:
            abort(404, f"Item {key} does not exist.")
    return Response(), 204


@blueprint.post("/background")
@auth.writer
def start_job() -> Answer:
    """Start a job that writes an item in `seconds` (default 1) from now; 202 with the job's ID."""
    body = request.get_json(silent=True) or {}
    seconds = body.get("seconds", 1)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= jobs.LATEST:
        abort(400, f"seconds: {seconds!r}: expected a number from 0 to {jobs.LATEST}.")
    return jsonify(id=jobs.submit(_title(body.get("title", "written in the background")), seconds)), 202


@blueprint.get("/background/<int:key>")
def show_job(key: int) -> Response:
    """Show a job: `state` is queued or done, `item_id` the item that it wrote."""
    with store.engine().connect() as connection:
        row = connection.execute(sa.select(database.jobs).where(database.jobs.c.id == key)).first()
    return jsonify(database.as_json(row)) if row else abort(404, f"Job {key} does not exist.")


@blueprint.get("/whoami")
def whoami() -> Response:
    """Show the client's address, scheme and host as the app sees them, to check what a proxy forwards."""
    return jsonify(ip=visitor.address(), scheme=request.scheme, host=request.host)


@blueprint.put("/language")
@auth.writer
def set_language() -> Response:
    """Set the language of the panel for all users, in BTPanel/languages/settings.json."""
    wanted = (request.get_json(silent=True) or {}).get("default")
    if wanted not in language.available():
        abort(400, f"default: {wanted!r}: expected one of {', '.join(language.available())}.")
    language.save(wanted)
    return jsonify(default=wanted)


def _item(key: int) -> Row[Any]:
    with store.engine().connect() as connection:
        row = connection.execute(sa.select(database.items).where(database.items.c.id == key)).first()
    return row if row is not None else abort(404, f"Item {key} does not exist.")


def _title(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= TITLE or "\0" in value:
        abort(400, f"title: expected a text of 1 to {TITLE} characters.")
    return value.strip()


def _fields(*, required: bool) -> dict[str, Any]:
    """Return the item's fields of a JSON or form request; answer 400 if one is invalid."""
    body = request.get_json(silent=True) if request.is_json else request.form.to_dict()
    if not isinstance(body, dict):
        abort(400, "Expected a JSON object.")
    values: dict[str, Any] = {}
    if required or "title" in body:
        values["title"] = _title(body.get("title"))
    if "note" in body:
        if not isinstance(body["note"], str) or "\0" in body["note"]:
            abort(400, "note: expected a text.")
        values["note"] = body["note"]
    if "done" in body:
        if not isinstance(body["done"], bool):
            abort(400, "done: expected true or false.")
        values["done"] = body["done"]
    if required:
        values["created_at"] = database.now()
    return values
