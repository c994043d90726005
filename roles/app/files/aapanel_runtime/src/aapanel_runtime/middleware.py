# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI layer around the application: health routes, metrics, identity headers, the client's address.

It stays out of the way: bodies are iterated by the server directly, files still go through ``sendfile``, and whatever
the application raises reaches the server.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .health import Check, Health
from .metrics import CONTENT_TYPE, Metrics
from .settings import BaseSettings
from .websockets import REGISTRY, Registry, WebSocket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]
Answer = tuple[str, str, bytes]

_NO_STATUS = 500
_SWITCHING_PROTOCOLS = 101
_SCHEMES = ("http", "https")


def trust_proxy(environ: WSGIEnvironment) -> None:
    """Take the client's address and scheme from the proxy, if the peer is a unix socket.

    Such a peer has no address, so ``REMOTE_ADDR`` is empty; and only the proxy can reach it, because the socket's
    folder says so. A TCP peer may be anybody: what it claims is left to the application. A value that is no address
    (also two joined by a comma, when the header came twice) is not believed.
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
    """A WSGI application around another one."""

    def __init__(
        self,
        application: WSGIApplication,
        health: Health,
        metrics: Metrics,
        settings: BaseSettings,
        websockets: Registry = REGISTRY,
    ) -> None:
        """Wrap ``application``; it keeps the health routes of ``AAPANEL_APP_ROUTES`` for itself."""
        self._application = application
        self._health = health
        self._metrics = metrics
        self._websockets = websockets
        self._identity = {"release": settings.aapanel_release, "slot": settings.aapanel_slot}
        self._own_headers = [(f"X-{name.title()}", value) for name, value in self._identity.items() if value]
        routes: dict[str, Callable[[], Answer]] = {"live": self._live, "ready": self._ready, "metrics": self._expose}
        kept = settings.aapanel_app_routes
        self._routes = {f"/health/{name}": route for name, route in routes.items() if name not in kept}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a health route, or let the application answer and take notes."""
        trust_proxy(environ)
        route = self._routes.get(environ.get("PATH_INFO", ""))
        if route is not None:
            return self._answer(route, environ["REQUEST_METHOD"], start_response)
        return self._watch(environ, start_response)

    def _watch(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _Request(self._metrics, environ, self._websockets)

        def start(status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:  # noqa: ANN401 - passed on
            request.status = int(status[:3])
            return start_response(status, self._stamp(headers), *exc_info)

        try:
            body = self._application(environ, start)
        except BaseException:
            # Also StopIteration, by which flask-sock tells gunicorn that a WebSocket is over: it must get through.
            request.finish()
            raise
        if request.upgraded:
            # The answer went over the socket; what the application returns is a message for its server.
            request.finish()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return _follow_file(body, request)
        return _Body(body, request)

    def _stamp(self, headers: Headers) -> Headers:
        ours = {name.lower() for name, _ in self._own_headers}
        return [*(header for header in headers if header[0].lower() not in ours), *self._own_headers]

    def _answer(self, route: Callable[[], Answer], method: str, start_response: StartResponse) -> list[bytes]:
        if method not in ("GET", "HEAD"):
            status, content_type, body = "405 Method Not Allowed", "text/plain; charset=utf-8", b"GET or HEAD only\n"
            headers = [("Allow", "GET, HEAD")]
        else:
            status, content_type, body = route()
            headers = []
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, [*headers, *self._own_headers])
        return [] if method == "HEAD" else [body]

    def _live(self) -> Answer:
        return _json("200 OK", {"status": "alive", **self._identity})

    def _ready(self) -> Answer:
        checks = self._health.checks()
        ready = all(check.status != "failed" for check in checks.values())
        answer = {
            "status": "ready" if ready else "unavailable",
            **self._identity,
            "checks": {name: check.as_dict() for name, check in checks.items()},
        }
        return _json("200 OK" if ready else "503 Service Unavailable", answer)

    def _expose(self) -> Answer:
        checks: dict[str, Check] = dict(self._health.checks())
        return "200 OK", CONTENT_TYPE, self._metrics.render(checks)


def _json(status: str, answer: dict[str, Any]) -> Answer:
    return status, "application/json", json.dumps(answer).encode() + b"\n"


class _Request:
    """Notes about one request, closed exactly once."""

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
        self._metrics.answered(self._method, status, seconds)


class _Body:
    """An answer's body that notes when it is closed. The server gets the application's own iterator."""

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


def _follow_file(body: Any, request: _Request) -> Iterable[bytes]:  # noqa: ANN401 - the server's own class
    """Note when the server closes its file wrapper; another object would cost it ``sendfile``."""
    close = getattr(body, "close", None)

    def close_and_note() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.finish()

    try:
        body.close = close_and_note
    except AttributeError:
        # A class without room for it: the time until here is the best there is.
        request.finish()
    result: Iterable[bytes] = body
    return result
