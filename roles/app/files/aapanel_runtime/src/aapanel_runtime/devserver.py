# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The development server: says what it serves, and starts again when code changes."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import socketserver
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref import simple_server

from .settings import BaseSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

# Set by werkzeug in the process that serves, as opposed to the one that watches files.
_SERVING_VARIABLE = "WERKZEUG_RUN_MAIN"


class DevelopmentServerError(Exception):
    """The development server cannot do what it was asked; the message says what can."""


def banner(settings: BaseSettings, *, reload: bool) -> str:
    """Return the start-up message. It holds no password."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    database, redis = settings.database, settings.redis
    rows = {
        "URL": f"{url}/",
        "Health": f"{url}/health/ready",
        "Application": settings.aapanel_app,
        "Environment": settings.environment,
        "Database": database.display if database else "not configured",
        "Redis": redis.display if redis else "not configured",
        "Release": settings.aapanel_release or "none",
        "Reload": "on" if reload else "off (--reload turns it on)",
    }
    width = max(map(len, rows)) + 2
    return "\n".join(["Development server", *(f"  {name:<{width}}{value}" for name, value in rows.items()), ""])


def serve(settings: BaseSettings, *, reload: bool = False) -> None:
    """Serve until interrupted: with werkzeug if the application brings it, else with the standard library.

    Raises:
        DevelopmentServerError: in production, or to reload without werkzeug.
    """
    if settings.environment == "production":
        raise DevelopmentServerError(
            "This server is for development. Set ENVIRONMENT=development, or serve with: "
            "gunicorn --config python:aapanel_runtime.gunicorn_config"
        )
    werkzeug = importlib.util.find_spec("werkzeug") is not None
    if reload and not werkzeug:
        raise DevelopmentServerError("--reload needs werkzeug: pip install werkzeug, or serve without --reload.")
    watching = reload and _SERVING_VARIABLE not in os.environ
    if watching or not reload:
        sys.stderr.write(banner(settings, reload=reload))
        sys.stderr.flush()
    if not werkzeug:
        _serve_plainly(settings)
        return
    application = _nothing if watching else _Forgiving() if reload else _load()
    importlib.import_module("werkzeug.serving").run_simple(
        settings.host, settings.port, application, use_reloader=reload, threaded=True
    )


def _load() -> WSGIApplication:
    application: WSGIApplication = importlib.import_module("aapanel_runtime.wsgi").application
    return application


def _nothing(_environ: WSGIEnvironment, _start_response: StartResponse) -> Iterable[bytes]:
    """Stand in for the application in the process that only watches files."""
    raise AssertionError("the process that watches files serves nothing")


class _Forgiving:
    """Survives an application that cannot be loaded: a mistake in it must not end the server that would reload it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._application: WSGIApplication | None = None
        # Now, so that the reloader knows the application's files before anybody can change them.
        self._try()

    def _try(self) -> WSGIApplication | None:
        with self._lock:
            if self._application is None:
                try:
                    self._application = _load()
                except Exception:  # noqa: BLE001 - whatever the code being written raises
                    _log.exception("The application cannot be loaded")
            return self._application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        application = self._try()
        if application is None:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The application cannot be loaded: see the terminal.\n"]
        return application(environ, start_response)


class _ThreadedServer(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


def _serve_plainly(settings: BaseSettings) -> None:
    with simple_server.make_server(settings.host, settings.port, _load(), server_class=_ThreadedServer) as server:
        server.serve_forever()
