# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the development server, which restarts when code changes."""

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

from ..settings import BaseSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

# Set by werkzeug in the process that serves, but not in the process that watches the files.
_SERVING_VARIABLE = "WERKZEUG_RUN_MAIN"


class DevelopmentServerError(Exception):
    """Raised if the development server cannot run with these settings or options."""


def banner(settings: BaseSettings, *, reload: bool) -> str:
    """Return the startup message, without passwords."""
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
        "Reload": "on" if reload else "off (enable it with --reload)",
    }
    width = max(map(len, rows)) + 2
    return "\n".join(["Development server", *(f"  {name:<{width}}{value}" for name, value in rows.items()), ""])


def serve(settings: BaseSettings, *, reload: bool = False) -> None:
    """Serve until interrupted: with werkzeug if it is installed, else with the standard library.

    :raises DevelopmentServerError: ENVIRONMENT is production, or *reload* is requested without werkzeug.
    """
    if settings.environment == "production":
        raise DevelopmentServerError(
            "The development server does not run with ENVIRONMENT=production. Set ENVIRONMENT=development, or run: "
            "gunicorn --config python:aapanel_runtime.gunicorn_config"
        )
    werkzeug = importlib.util.find_spec("werkzeug") is not None
    if reload and not werkzeug:
        raise DevelopmentServerError(
            "--reload needs werkzeug, which is not installed. Run `pip install werkzeug`, or omit --reload."
        )
    watching = reload and _SERVING_VARIABLE not in os.environ
    if watching or not reload:
        sys.stderr.write(banner(settings, reload=reload))
        sys.stderr.flush()
    if not werkzeug:
        _serve_with_standard_library(settings)
        return
    application = _never_called if watching else _Reloadable() if reload else _load()
    importlib.import_module("werkzeug.serving").run_simple(
        settings.host, settings.port, application, use_reloader=reload, threaded=True
    )


def _load() -> WSGIApplication:
    application: WSGIApplication = importlib.import_module("aapanel_runtime.wsgi").application
    return application


def _never_called(_environ: WSGIEnvironment, _start_response: StartResponse) -> Iterable[bytes]:
    """Replace the application in the process that only watches files."""
    raise AssertionError("the process that watches files serves no requests")


class _Reloadable:
    """The application, loaded again until that succeeds: an error in it must not end the server that reloads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._application: WSGIApplication | None = None
        # Loaded at once, so that the reloader watches the files of the application.
        self._try_load()

    def _try_load(self) -> WSGIApplication | None:
        with self._lock:
            if self._application is None:
                try:
                    self._application = _load()
                except Exception:  # noqa: BLE001 - any error of the code that is being written
                    _log.exception("The application cannot be loaded")
            return self._application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        application = self._try_load()
        if application is None:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The application cannot be loaded. See the terminal.\n"]
        return application(environ, start_response)


class _ThreadedServer(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


def _serve_with_standard_library(settings: BaseSettings) -> None:
    with simple_server.make_server(settings.host, settings.port, _load(), server_class=_ThreadedServer) as server:
        server.serve_forever()
