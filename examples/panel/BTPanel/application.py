# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application factory."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from logging.handlers import WatchedFileHandler

from flask import Flask, Response, jsonify, render_template, request
from flask.sessions import SecureCookieSessionInterface
from panel_store import database, paths
from sqlalchemy.engine import Engine
from werkzeug.exceptions import HTTPException

from . import api, auth, cli, faults, language, pages, sockets, store, trials, uploads

UPLOAD_LIMIT = 16 * 1024 * 1024
SHORTEST_KEY = 32


class _Sessions(SecureCookieSessionInterface):
    """Marks session cookies as Secure for HTTPS requests only, because the panel also serves hosts without TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 (the signature is Flask's)
        return request.is_secure


def create_app(engine: Engine | None = None) -> Flask:
    """Create the app without connecting to the database, so that it starts while the database is down.

    :raises RuntimeError: if the home does not exist, or the secret key is too short for production.
    """
    paths.prepare()
    app = Flask("BTPanel", static_folder=str(paths.RELEASE / "static"), static_url_path="/static")
    app.config.update(
        SECRET_KEY=_secret_key(),
        MAX_CONTENT_LENGTH=UPLOAD_LIMIT,
        SESSION_COOKIE_NAME="panel_session",
        SESSION_COOKIE_SAMESITE="Lax",
        SOCK_SERVER_OPTIONS={"ping_interval": 25, "max_message_size": 1024 * 1024},
    )
    app.session_interface = _Sessions()
    store.attach(app, engine or database.connect())
    _log(app)
    for part in (auth, pages, api, uploads, trials):
        app.register_blueprint(part.blueprint)
    sockets.attach(app)
    cli.attach(app)
    app.register_error_handler(HTTPException, _on_error)
    app.after_request(_protect)
    app.jinja_env.globals.update(asset=_asset, t=language.translate, language=language.current, csrf=auth.csrf_token)
    faults.at_requests(app)
    return app


def _secret_key() -> str:
    key = os.environ.get("SECRET_KEY")
    if not key:  # Shared by all workers and both slots, so that sessions survive a deploy.
        return paths.read_or_create(paths.DATA / "secret_key.pl", secrets.token_urlsafe(48))
    if os.environ.get("ENVIRONMENT") == "production" and len(key) < SHORTEST_KEY:
        raise RuntimeError(f"SECRET_KEY: {len(key)} characters; production needs at least {SHORTEST_KEY}.")
    return key


def _log(app: Flask) -> None:
    handler = WatchedFileHandler(paths.LOGS / "panel.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    app.logger.handlers[:] = [handler]
    if os.environ.get("LOG_TO_CONSOLE", "").lower() in {"1", "true", "yes"}:
        app.logger.addHandler(logging.StreamHandler())
    app.logger.setLevel(logging.INFO)
    app.logger.propagate = False


def _on_error(error: HTTPException) -> Response | tuple[Response | str, int]:
    if error.response is not None:  # A redirect raised by werkzeug.
        return error.get_response()  # type: ignore[return-value]  # werkzeug's Response; Flask sends it as it is
    code = error.code or 500
    if request.path.startswith("/api/"):
        return jsonify(error=error.name, message=error.description), code
    return render_template("error.html", code=code, name=error.name), code


def _protect(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "SAMEORIGIN")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Content-Security-Policy", "default-src 'self'; frame-ancestors 'self'; form-action 'self'")
    return response


_digests: dict[str, str] = {}


def _asset(name: str) -> str:
    """Return the URL of a static file with a digest of its content, so that it can be cached for a year."""
    if name not in _digests:
        content = (paths.RELEASE / "static" / name).read_bytes()
        _digests[name] = hashlib.sha256(content).hexdigest()[:12]
    return f"/static/{name}?v={_digests[name]}"
