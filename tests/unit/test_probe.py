# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for probe.py, against a correct edge and against edges with one flaw each.

A check that passes an edge with its flaw would prove nothing in a container either.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "molecule" / "shared" / "files" / "probe.py"
specification = importlib.util.spec_from_file_location("probe", FILE)
probe = importlib.util.module_from_spec(specification)
sys.modules["probe"] = probe
specification.loader.exec_module(probe)

PAGE = b'<!doctype html><html lang=en><link rel=stylesheet href="/static/css/panel.css?v=1">' + b"." * 2000


class Edge(BaseHTTPRequestHandler):
    """nginx and the panel in one, as far as the probe can see; `server.flaw` is the name of its flaw."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        flaw = self.server.flaw
        if flaw == "hangs":
            self.server.released.wait(20)
        elif flaw == "trickles":
            self.send_response(200)
            self.end_headers()
            while not self.server.released.wait(0.05):
                self.wfile.write(b".")
        elif self.headers.get("Host") != "panel.test" and flaw != "any host":
            self.close_connection = True
        elif flaw == "stopped":
            self.send(502, PAGE)
        elif flaw == "stopped, default page":
            self.send(502, b"<html><center>nginx/1.22.1</center></html>")
        else:
            name = self.path.partition("?")[0].replace("/", "_").replace(".", "_")
            getattr(self, f"on{name}", self.not_found)(flaw)

    def not_found(self, flaw):
        default = b"<html><head><title>404</title></head><hr><center>nginx</center></html>"
        self.send(404, default if flaw == "default 404" else PAGE)

    def on_(self, flaw):
        packs = "gzip" in self.headers.get("Accept-Encoding", "")
        if (packs and flaw != "no gzip") or flaw == "always gzip":
            vary = {} if flaw == "no vary" else {"Vary": "Accept-Encoding"}
            return self.send(200, gzip.compress(PAGE), Content_Encoding="gzip", **vary)
        return self.send(200, PAGE)

    def on_static_css_panel_css(self, flaw):
        age = "3600" if flaw == "short cache" else "31536000"
        if self.headers.get("If-None-Match") == '"1"' and flaw != "no 304":
            return self.send(304, ETag='"1"')
        tag = {} if flaw == "no etag" else {"ETag": '"1"'}
        return self.send(200, gzip.compress(b"a"), Content_Encoding="gzip", Cache_Control=f"max-age={age}", **tag)

    def on_health_live(self, flaw):
        self.health(flaw)

    def on_health_ready(self, flaw):
        if flaw == "not ready":
            return self.send(503, b'{"database": "down"}', X_Release="r1", X_Slot="blue")
        return self.health(flaw)

    def health(self, flaw):
        body = b"fine" if flaw == "ready is no json" else b'{"status": "ok"}'
        slot = {} if flaw == "no slot" else {"X_Slot": "blue"}
        self.send(200, body, X_Release="r1", **slot)

    def on_api_whoami(self, flaw):
        ip = self.headers["X-Real-IP"] if flaw == "believes the client" else self.client_address[0]
        host = "127.0.0.1" if flaw == "host lost" else self.headers["Host"]
        self.send(200, json.dumps({"ip": ip, "host": host, "scheme": "http"}).encode())

    def on_stream(self, flaw):
        body = b"x" * 4000
        self.send_response(200)
        self.send_header("Content-Length", str(4 * len(body) + 4))
        self.end_headers()
        for _ in range(4):
            self.wfile.write(body)
            if flaw != "buffered":
                time.sleep(0.4)
        if flaw == "cut":
            self.close_connection = True
            return
        self.wfile.write(b"end\n")

    def on_ws_panel(self, flaw):
        if flaw == "no upgrade":
            return self.send(400, b"bad")
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        proof = "x" if flaw == "wrong proof" else base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", proof)
        self.end_headers()
        self.close_connection = True
        for _ in range(2):
            opcode, payload = self.frame()
            if flaw == "closes":
                self.wfile.write(b"\x88\x02" + (1011).to_bytes(2, "big"))
                return None
            if flaw == "cuts long frames" and len(payload) > 1000:
                payload = payload[:1000]
            if flaw == "drops":
                return None
            self.wfile.write(b"\x89\x04ping")  # A ping between the frames, which a client must answer.
            half = len(payload) // 2
            self.wfile.write(bytes([opcode]) + b"\x7f" + half.to_bytes(8, "big") + payload[:half])
            rest = payload[half:]
            self.wfile.write(b"\x80\x7f" + len(rest).to_bytes(8, "big") + rest)
            assert self.frame() == (10, b"ping")
        assert self.frame() == (8, (1000).to_bytes(2, "big"))
        return None

    def frame(self):
        first, second = self.rfile.read(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        assert second & 0x80, "a client must mask its frames"
        mask, data = self.rfile.read(4), self.rfile.read(size)
        return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Ignore that the probe closes connections early."""


@pytest.fixture
def edge():
    server = Quiet(("127.0.0.1", 0), Edge)
    server.flaw, server.released = None, threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def run(server, name, **more):
    target = probe.Target(url=f"http://127.0.0.1:{server.server_port}", host_header="panel.test", **more)
    return probe.run(name, target)


@pytest.mark.parametrize(
    "check", ["health", "static", "gzip", "unknown-host", "errors", "headers", "stream", "websocket"]
)
def test_a_correct_edge_passes(edge, check):
    result = run(edge, check)
    assert result["ok"], result


@pytest.mark.parametrize(
    ("check", "flaw", "message"),
    [
        ("health", "not ready", "GET /health/ready: expected 200, got 503"),
        ("health", "ready is no json", "expected a JSON object, got fine"),
        ("health", "no slot", "expected a header X-Slot, got none"),
        ("static", "short cache", "got Cache-Control 'max-age=3600'"),
        ("static", "no etag", "expected an ETag"),
        ("static", "no 304", "expected 304, got 200"),
        ("gzip", "no gzip", "expected Content-Encoding gzip, got None"),
        ("gzip", "no vary", "expected Vary"),
        ("gzip", "always gzip", "without gzip: expected no encoding, got 'gzip'"),
        ("unknown-host", "any host", "'unknown.invalid': expected a closed connection, got 200"),
        ("unknown-host", "stopped", "expected 200, got 502"),
        ("errors", "default 404", "expected the panel's own page"),
        ("unavailable", None, "expected 502, 503 or 504, got 200"),
        ("unavailable", "stopped, default page", "expected the panel's own page"),
        ("headers", "believes the client", "got '203.0.113.9'"),
        ("headers", "host lost", "expected host 'panel.test', got '127.0.0.1'"),
        ("stream", "buffered", "buffered on the way"),
        ("stream", "cut", "cut"),
        ("websocket", "no upgrade", "expected 101, got HTTP/1.1 400"),
        ("websocket", "wrong proof", "wrong Sec-WebSocket-Accept"),
        ("websocket", "closes", "closed by the server with code 1011"),
        ("websocket", "drops", "ended after 0 of 2 bytes"),
        ("websocket", "cuts long frames", "sent 65536 bytes as opcode 2, got 1000"),
        ("pages", "hangs", "TimeoutError"),
        ("pages", "trickles", "not done within 1.5 s"),
        ("item", None, "needs the panel's token"),
        ("kept", None, "needs --expect path="),
    ],
)
def test_each_flaw_is_found_and_named(edge, check, flaw, message):
    edge.flaw = flaw
    result = run(edge, check, timeout=0.5 if flaw in {"hangs", "trickles"} else 5)
    assert not result["ok"]
    assert message in result["detail"]


def test_a_stopped_app_passes_unavailable(edge):
    edge.flaw = "stopped"
    assert run(edge, "unavailable")["detail"] == "502"


def test_release_and_slot_are_compared(edge):
    assert run(edge, "health", expected={"release": ["r0", "r1"], "slot": ["blue"]})["ok"]
    result = run(edge, "health", expected={"slot": ["green"]})
    assert result["detail"] == "GET /health/live: expected slot=green, got 'blue'"


def test_a_refused_connection_is_a_failure_without_a_traceback():
    done = subprocess.run(
        [sys.executable, FILE, "--url", "http://127.0.0.1:1", "--host-header", "panel.test", "pages", "unknown-host"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["FAIL pages", "FAIL unknown-host"]
    assert "ConnectionRefusedError" in lines[0]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "panel.test", "pages"], "--url panel.test: expected http://host"),
        (["--url", "http://h", "--expect", "releas=1", "pages"], "--expect releas=1: expected KEY=VALUE"),
        (["--url", "http://h", "page"], "page"),
        (["--url", "http://h"], "CHECK"),
    ],
)
def test_an_invalid_command_line_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        probe.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_token_is_not_printed(edge, tmp_path, capsys):
    file = tmp_path / "token"
    file.write_text("very-secret\n")
    url = f"http://127.0.0.1:{edge.server_port}"
    assert probe.main(["--url", url, "--host-header", "panel.test", "--token-file", str(file), "item", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["check"] == "item"
    assert "very-secret" not in printed.out + printed.err
