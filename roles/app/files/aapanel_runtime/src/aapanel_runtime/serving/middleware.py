# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI layer around the application: health routes, metrics, release headers, the client's address.

The layer changes nothing else: the server iterates over the application's own body, files still go through
``sendfile``, and exceptions of the application reach the server.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..health import Check, Health
from ..settings import BaseSettings
from .metrics import CONTENT_TYPE, Metrics
from .websockets import REGISTRY, Registry, WebSocket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]
Response = tuple[str, str, bytes]

_NO_STATUS = 500
_SWITCHING_PROTOCOLS = 101
_SCHEMES = ("http", "https")


def trust_proxy(environ: WSGIEnvironment) -> None:
    """Set the client's address and scheme from the headers of the proxy, if the request came over the unix socket.

    A client of a unix socket has no address, so ``REMOTE_ADDR`` is empty. Only the proxy can connect to it, because the
    socket's folder is restricted. The headers of a TCP client are not trusted and left to the application. A value that
    is not an address is ignored, also two addresses joined by a comma, if the header was sent twice.
    """
    connection = environ.get("gunicorn.socket")
    if environ.get("REMOTE_ADDR") or (connection is not None and connection.family != socket.AF_UNIX):
        return
    claimed = environ.get("HTTP_X_REAL_IP", "").strip()
    try:
        environ["REMOTE_ADDR"] = str(ipaddress.ip_address(claimed))
    except ValueError:
        environ["REMOTE_ADDR"] = ""
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").strip().lower()
    if scheme in _SCHEMES:
        environ["wsgi.url_scheme"] = scheme


class Runtime:
    """A WSGI application that wraps another one."""

    def __init__(
        self,
        application: WSGIApplication,
        health: Health,
        metrics: Metrics,
        settings: BaseSettings,
        websockets: Registry = REGISTRY,
    ) -> None:
        """Wrap *application*, which serves the health routes of ``AAPANEL_APP_ROUTES`` itself."""
        self._application = application
        self._health = health
        self._metrics = metrics
        self._websockets = websockets
        self._identity = {"release": settings.aapanel_release, "slot": settings.aapanel_slot}
        self._own_headers = [(f"X-{name.title()}", value) for name, value in self._identity.items() if value]
        routes: dict[str, Callable[[], Response]] = {"live": self._live, "ready": self._ready, "metrics": self._expose}
        kept = settings.aapanel_app_routes
        self._routes = {f"/health/{name}": route for name, route in routes.items() if name not in kept}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a health route, or pass the request to the application and measure it."""
        trust_proxy(environ)
        route = self._routes.get(environ.get("PATH_INFO", ""))
        if route is not None:
            return self._answer(route, environ["REQUEST_METHOD"], start_response)
        return self._measure(environ, start_response)

    def _measure(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _Request(self._metrics, environ, self._websockets)

        def start(status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:  # noqa: ANN401 - passed on
            request.status = int(status[:3])
            return start_response(status, self._with_own_headers(headers), *exc_info)

        try:
            body = self._application(environ, start)
        except BaseException:
            # Includes StopIteration, with which flask-sock signals the end of a WebSocket to gunicorn.
            request.finish()
            raise
        if request.upgraded:
            # The application has answered over the socket; its return value is a signal for the server.
            request.finish()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return _finish_on_close(body, request)
        return _Body(body, request)

    def _with_own_headers(self, headers: Headers) -> Headers:
        ours = {name.lower() for name, _ in self._own_headers}
        return [*(header for header in headers if header[0].lower() not in ours), *self._own_headers]

    def _answer(self, route: Callable[[], Response], method: str, start_response: StartResponse) -> list[bytes]:
        if method not in ("GET", "HEAD"):
            status, content_type, body = "405 Method Not Allowed", "text/plain; charset=utf-8", b"GET or HEAD only\n"
            headers = [("Allow", "GET, HEAD")]
        else:
            status, content_type, body = route()
            headers = []
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, [*headers, *self._own_headers])
        return [] if method == "HEAD" else [body]

    def _live(self) -> Response:
        return _json("200 OK", {"status": "alive", **self._identity})

    def _ready(self) -> Response:
        checks = self._health.checks()
        ready = all(check.status != "failed" for check in checks.values())
        answer = {
            "status": "ready" if ready else "unavailable",
            **self._identity,
            "checks": {name: check.as_dict() for name, check in checks.items()},
        }
        return _json("200 OK" if ready else "503 Service Unavailable", answer)

    def _expose(self) -> Response:
        checks: dict[str, Check] = dict(self._health.checks())
        return "200 OK", CONTENT_TYPE, self._metrics.render(checks)


def _json(status: str, answer: dict[str, Any]) -> Response:
    return status, "application/json", json.dumps(answer).encode() + b"\n"


class _Request:
    """The measurement of one request, finished exactly once."""

    def __init__(self, metrics: Metrics, environ: WSGIEnvironment, websockets: Registry) -> None:
        self.status = 0
        self._metrics = metrics
        self._method = environ["REQUEST_METHOD"]
        self._started = time.perf_counter()
        self._websockets = websockets
        self._websocket: WebSocket | None = None
        self._gauge = metrics.in_flight
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket" and "gunicorn.socket" in environ:
            self._websocket = environ["gunicorn.socket"] = websockets.wrap(environ["gunicorn.socket"])
            self._gauge = metrics.websockets
        self._open = True
        self._gauge.inc()

    @property
    def upgraded(self) -> bool:
        return self._websocket is not None and self._websocket.established

    def finish(self) -> None:
        if not self._open:
            return
        self._open = False
        self._gauge.dec()
        seconds: float | None = time.perf_counter() - self._started
        status = self.status or _NO_STATUS
        if self._websocket is not None:
            self._websockets.discard(self._websocket)
        if self.upgraded:
            status, seconds = _SWITCHING_PROTOCOLS, None
        self._metrics.count_request(self._method, status, seconds)


class _Body:
    """A response body that finishes the measurement when it is closed; it returns the application's own iterator."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body = body
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._request.finish()


def _finish_on_close(body: Any, request: _Request) -> Iterable[bytes]:  # noqa: ANN401 - the server's own class
    """Finish the measurement when the server closes its file wrapper, which is kept so that it uses ``sendfile``."""
    close = getattr(body, "close", None)

    def close_and_finish() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.finish()

    try:
        body.close = close_and_finish
    except AttributeError:
        # The class does not allow it: measure the time until now.
        request.finish()
    result: Iterable[bytes] = body
    return result
