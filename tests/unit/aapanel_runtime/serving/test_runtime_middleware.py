# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI layer, called by a server that checks PEP 3333."""

from __future__ import annotations

import io
import re
import socket
import sys
from contextlib import closing
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from aapanel_runtime import get_settings
from aapanel_runtime.health import Check, Component, Health
from aapanel_runtime.serving.metrics import Metrics
from aapanel_runtime.serving.middleware import Runtime, trust_proxy
from aapanel_runtime.serving.websockets import Registry


class Call:
    """One request to an application inside the runtime."""

    def __init__(self, application, path="/", method="GET", strict=True, **settings):
        overrides = {"aapanel_release": "r-1", "aapanel_slot": "green", **settings}
        self.metrics = Metrics(shared=False, labels={"release": "r-1"})
        runtime = Runtime(
            application, Health([], 1), self.metrics, get_settings("development", **overrides), Registry()
        )
        self.environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": "", "SCRIPT_NAME": ""}
        setup_testing_defaults(self.environ)
        self.environ["wsgi.file_wrapper"] = FileWrapper
        self.starts = []
        self.written = []
        self.runtime = validator(runtime) if strict else runtime

    def __call__(self):
        def start(status, headers, exc_info=None):
            self.starts.append((status, headers, exc_info))
            return self.written.append

        return self.runtime(self.environ, start)

    def read(self) -> bytes:
        body = self()
        try:
            return b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close:
                close()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics.render({}).decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    @property
    def in_flight(self) -> float:
        return self.metric("aapanel_http_requests_in_flight")

    def count(self, status: int, method: str = "GET") -> float:
        return self.metric(f'aapanel_http_requests_total{{method="{method}",status="{status}"}}')


def hello(environ, start_response):
    start_response(
        "200 OK", [("Content-Type", "text/plain"), ("x-release", "forged"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
    )
    return [b"hello"]


def test_the_headers_of_the_application_are_kept_except_release_and_slot():
    call = Call(hello)
    assert call.read() == b"hello"
    assert call.starts[0][1] == [
        ("Content-Type", "text/plain"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("X-Release", "r-1"),
        ("X-Slot", "green"),
    ]
    assert call.count(200) == 1


def test_a_request_is_counted_once_when_its_body_is_closed():
    closed = []

    class Body:
        def __iter__(self):
            yield b"a"

        def close(self):
            closed.append(True)

    def application(environ, start_response):
        start_response("206 Partial Content", [("Content-Type", "text/plain")])
        return Body()

    call = Call(application, strict=False)
    body = call()
    assert next(iter(body)) == b"a"
    assert (call.in_flight, call.count(206)) == (1, 0)
    body.close()
    body.close()
    assert (call.in_flight, call.count(206)) == (0, 1)
    assert closed, "the application must see that the client has disconnected"


def test_a_response_that_starts_during_iteration_is_counted():
    def application(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        yield b"gone"

    call = Call(application, strict=False)
    assert call.read() == b"gone"
    assert (call.count(404), call.in_flight) == (1, 0)


def test_an_error_page_after_start_response_passes_exc_info():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    call = Call(application)
    assert call.read() == b"sorry"
    assert call.starts[0][2] is None
    assert call.starts[1][2][0] is RuntimeError
    assert ("X-Slot", "green") in call.starts[1][1]
    assert call.count(500) == 1


def test_the_write_callable_works():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written")
        return []

    call = Call(application)
    call.read()
    assert call.written == [b"written"]


@pytest.mark.parametrize("error", [RuntimeError, StopIteration, SystemExit, GeneratorExit])
def test_an_exception_reaches_the_server_and_ends_the_request(error):
    def application(environ, start_response):
        raise error

    call = Call(application, strict=False)
    with pytest.raises(error):
        call()
    assert (call.in_flight, call.count(500)) == (0, 1)


def test_the_file_wrapper_of_the_server_is_kept_for_sendfile():
    file = io.BytesIO(b"content")

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](file)

    call = Call(application, strict=False)
    body = call()
    assert type(body) is FileWrapper
    assert call.in_flight == 1
    body.close()
    assert file.closed
    assert (call.in_flight, call.count(200)) == (0, 1)


def test_unknown_methods_share_one_label():
    for method in ("BREW", "PROPFIND"):
        call = Call(hello, method=method, strict=False)
        call.read()
        assert call.count(200, "OTHER") == 1
        assert method not in call.metrics.render({}).decode()


def test_the_application_serves_the_routes_of_aapanel_app_routes():
    assert Call(hello, "/health/live", aapanel_app_routes="live,metrics").read() == b"hello"
    assert Call(hello, "/health/metrics", aapanel_app_routes="live,metrics").read() == b"hello"
    assert b"ready" in Call(hello, "/health/ready", aapanel_app_routes="live,metrics").read()
    assert Call(hello, "/health/lively").read() == b"hello"


def test_an_empty_release_or_slot_sends_no_header():
    call = Call(hello, aapanel_release="", aapanel_slot="")
    call.read()
    assert "X-Slot" not in dict(call.starts[0][1])


def test_ready_names_the_failed_component():
    metrics = Metrics(shared=False, labels={})

    def fail(timeout):
        raise OSError

    health = Health([Component("database", "postgresql", fail), Component("redis")], 1)
    runtime = Runtime(hello, health, metrics, get_settings("development"))
    environ = {"PATH_INFO": "/health/ready", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    starts = []
    (body,) = runtime(environ, lambda *arguments: starts.append(arguments))
    assert starts[0][0] == "503 Service Unavailable"
    assert b'"status": "failed", "kind": "postgresql"' in body
    assert b'"redis": {"status": "not_configured"}' in body
    text = metrics.render({"database": Check("failed"), "redis": Check("not_configured")}).decode()
    assert 'aapanel_dependency_up{dependency="database"} 0.0' in text
    assert 'dependency="redis"' not in text


@pytest.mark.parametrize(("family", "address"), [(socket.AF_UNIX, "203.0.113.7"), (socket.AF_INET, "")])
def test_a_tcp_client_without_an_address_is_not_trusted(family, address):
    with closing(socket.socket(family)) as connection:
        environ = {"REMOTE_ADDR": "", "gunicorn.socket": connection, "HTTP_X_REAL_IP": "203.0.113.7"}
        trust_proxy(environ)
    assert environ["REMOTE_ADDR"] == address
