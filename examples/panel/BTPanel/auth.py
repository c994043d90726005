# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Login, and authorization of writes by a session with a CSRF token, or by a bearer token."""

from __future__ import annotations

import functools
import hmac
import os
import secrets
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from flask import Blueprint, Response, abort, current_app, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from panel_store import database, paths
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

from . import store, visitor

blueprint = Blueprint("auth", __name__)
P = ParamSpec("P")
R = TypeVar("R")

# Explicit, because newer versions of werkzeug default to a scheme that older ones cannot read, and two releases share
# the table.
HASH = "pbkdf2:sha256:600000"


def admin_path() -> str:
    """Return the path of the login page, from data/admin_path.pl; by default `/login`."""
    return "/" + paths.read_or_create(paths.DATA / "admin_path.pl", "/login", 0o640).strip("/")


def api_token() -> str:
    """Return the bearer token for scripts: PANEL_API_TOKEN, or a random one that is kept in data/api_token.pl."""
    wanted = os.environ.get("PANEL_API_TOKEN")
    return wanted or paths.read_or_create(paths.DATA / "api_token.pl", secrets.token_urlsafe(32))


def ensure_admin() -> str | None:
    """Create the first user.

    The name is PANEL_ADMIN_USER (default admin). The password is PANEL_ADMIN_PASSWORD, or a random one that is kept in
    data/default.pl, mode 0600, until the administrator deletes it.

    :returns: the name, or None if there is a user already.
    """
    users = database.users
    with store.engine().connect() as connection:
        if connection.execute(sa.select(users.c.id).limit(1)).first():
            return None
    name = os.environ.get("PANEL_ADMIN_USER", "admin")
    password = os.environ.get("PANEL_ADMIN_PASSWORD") or paths.read_or_create(
        paths.DATA / "default.pl", secrets.token_urlsafe(18)
    )
    row = {"name": name, "password_hash": generate_password_hash(password, HASH), "created_at": database.now()}
    try:
        with store.engine().begin() as connection:
            connection.execute(sa.insert(users), row)
    except IntegrityError:  # Another worker created it meanwhile.
        return None
    return name


@functools.lru_cache
def _dummy_hash() -> str:
    return generate_password_hash(secrets.token_hex(), HASH)


def csrf_token() -> str:
    """Return the session's CSRF token, for forms (`csrf_token`) and scripts (`X-CSRF-Token`)."""
    token: str = session.setdefault("csrf", secrets.token_urlsafe(24))
    return token


def check_csrf() -> None:
    """Answer 400 unless the request has the session's CSRF token."""
    given = request.form.get("csrf_token") or request.headers.get("X-CSRF-Token", "")
    expected = session.get("csrf", "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        abort(400, "The form has expired: load the page again.")


def writer(view: Callable[P, R]) -> Callable[P, R]:
    """Restrict a view to the bearer token, or to a signed-in user with a CSRF token; answer 401 otherwise."""

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and hmac.compare_digest(token.encode(), api_token().encode()):
            return view(*args, **kwargs)
        if "user" not in session:
            abort(401, "Sign in, or send the header Authorization: Bearer <token of data/api_token.pl>.")
        check_csrf()
        return view(*args, **kwargs)

    return guarded


def signed_in(view: Callable[P, R]) -> Callable[P, R]:
    """Restrict a page to signed-in users; answer 404 otherwise, as for an unknown path."""

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if "user" not in session:
            abort(404)
        return view(*args, **kwargs)

    return guarded


@blueprint.route("/<path:path>", methods=["GET", "POST"])
def login(path: str) -> ResponseReturnValue:
    """Serve the login page at its secret path to browsers whose address is known; answer 404 otherwise."""
    if "/" + path.strip("/") != admin_path() or not visitor.has_browser() or visitor.address() is None:
        abort(404)
    if request.method == "GET":
        return _form()
    check_csrf()
    ensure_admin()
    name = request.form.get("name", "")
    with store.engine().connect() as connection:
        users = database.users
        row = connection.execute(sa.select(users.c.id, users.c.password_hash).where(users.c.name == name)).first()
    # Also compute a hash for an unknown name, so that it takes as long as a wrong password.
    right = check_password_hash(row.password_hash if row else _dummy_hash(), request.form.get("password", ""))
    if not row or not right:
        current_app.logger.warning("login failed for %r from %s", name[:64], visitor.address())
        return _form("login.wrong"), 401
    session.clear()  # Prevents session fixation.
    session["user"] = name
    current_app.logger.info("login of %r from %s", name, visitor.address())
    return redirect(url_for("pages.panel"))


def _form(problem: str | None = None) -> Response:
    response = Response(render_template("login.html", problem=problem, action=admin_path()))
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """End the session."""
    check_csrf()
    session.clear()
    return redirect(url_for("pages.landing"))
