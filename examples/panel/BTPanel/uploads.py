# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads. Files get a random name, and only types that a browser does not execute are accepted."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import PurePath

from flask import Blueprint, Response, abort, jsonify, request, send_from_directory
from panel_store import paths

from . import auth

blueprint = Blueprint("uploads", __name__)

# No HTML or SVG, because a browser would run their scripts in the panel's origin.
ALLOWED = {"bin", "csv", "gif", "jpeg", "jpg", "json", "pdf", "png", "txt", "webp", "zip"}


@blueprint.post("/api/upload")
@auth.writer
def upload() -> tuple[Response, int]:
    """Store the form's `file`; 201 with its URL, size and SHA-256, 400 for another type, 413 if it is too large."""
    file = request.files.get("file")
    if file is None or not file.filename:
        abort(400, "file: missing; send a form of type multipart/form-data.")
    kind = PurePath(file.filename).suffix.lower().lstrip(".")
    if kind not in ALLOWED:
        abort(400, f"file: .{kind}: expected one of {', '.join(sorted(ALLOWED))}.")
    name = f"{secrets.token_hex(12)}.{kind}"
    temporary = paths.UPLOADS / f".{name}"
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as target:
            while chunk := file.stream.read(64 * 1024):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        temporary.chmod(0o644)  # nginx, which runs as another user, may serve it.
        temporary.replace(paths.UPLOADS / name)
    finally:
        temporary.unlink(missing_ok=True)
    return jsonify(url=f"/static/upload/{name}", size=size, sha256=digest.hexdigest()), 201


@blueprint.get("/static/upload/<name>")
def show(name: str) -> Response:
    """Serve an uploaded file, because its folder is in the home and not in the release."""
    if name.startswith("."):
        abort(404)
    return send_from_directory(paths.UPLOADS, name)
