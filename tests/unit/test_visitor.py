# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for the visitor of the stories, against a server that fails on request."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kit.hosts import wait_until
from kit.programs import Visitor, visitor_command


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_GET(self):
        self.send_response(500 if self.path in self.server.broken else 200)
        for name, value in {"X-Release": "r1", "X-Slot": "blue", "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.broken, listening.connections = set(), 0
        listening.daemon_threads = True
        listening.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def visit_once(url, *paths):
    command = visitor_command(url, "panel.test", *paths, fresh=True)
    return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode


def test_an_outage_is_reported_with_its_path_and_its_duration(server):
    visitor = Visitor(visitor_command(server.url, "panel.test", "/", "/version"))
    server.broken.add("/version")
    wait_until(lambda: visitor.last["status"] == 500, 10, "the failure")
    server.broken.clear()
    wait_until(lambda: visitor.last["status"] == 200, 10, "the end of the failure")
    summary = visitor.finish()
    assert summary["failed"] > 0
    assert [(line["path"], line["status"]) for line in visitor.failures] == [("/version", 500)]
    assert 0.1 < visitor.outage() < 10


def test_half_of_the_visits_keep_their_connection(server):
    visitor = Visitor(visitor_command(server.url, "panel.test", "/"))
    wait_until(lambda: server.connections > 5, 10, "new connections")
    assert server.connections < visitor.finish()["visits"]


def test_a_fresh_visitor_keeps_no_connection(server):
    visitor = Visitor(visitor_command(server.url, "panel.test", "/", fresh=True))
    wait_until(lambda: server.connections > 5, 10, "new connections")
    assert visitor.finish()["visits"] == server.connections


def test_the_exit_status_says_whether_a_visit_failed(server):
    assert visit_once(server.url, "/", "/version") == 0
    server.broken.add("/version")
    assert visit_once(server.url, "/", "/version") == 1
    assert visit_once("http://127.0.0.1:1", "/") == 1
