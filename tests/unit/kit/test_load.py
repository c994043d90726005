# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmarks' load client against a correct server, and against servers with one fault each.

A benchmark without failures proves something only if its client detects failures.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[2] / "kit" / "load.py"
TOKEN = "token-of-the-tests"
STREAM = (b"0 ".ljust(1024, b".") + b"\n") * 50 + b"end\n"

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the client needs asyncio.timeout")


class Panel:
    """A fake nginx and panel, in its own event loop; `flaw` is its fault."""

    def __init__(self, flaw=""):
        self.flaw = flaw
        self.connections = 0
        self.requests = []
        self.released = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self):
        self.thread.start()
        starting = asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(5)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        async def stop():
            self.server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            for number in itertools.count(1):
                if self.flaw == "closes idle" and number > 1:
                    break
                raw = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = raw.split(" ", 2)
                headers = dict(re.findall(r"^([\w-]+): (.*)\r$", raw, re.MULTILINE))
                self.requests.append((method, path, headers))
                if path == "/ws_panel":
                    await self.echo(reader, writer, headers)
                    break
                body = await reader.readexactly(int(headers.get("Content-Length", 0)))
                if not await self.answer(writer, path, headers, body, number):
                    break
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    async def answer(self, writer, path, headers, body, number):
        """Send the response to a request; returns whether the connection stays open."""
        flaw, name = self.flaw, path.partition("?")[0]
        if flaw == "resets" and number == 3:
            # With a linger time of zero, the peer gets a reset instead of an end.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if flaw == "ends" and number == 3:
            return False
        if flaw == "hangs" and name == "/version":
            await asyncio.sleep(30)
        close = headers.get("Connection") == "close" or (flaw == "announces" and number == 3)
        identity = {"release": "r1", "slot": "blue"}
        status, value = 200, identity
        if flaw == "slow" and name == "/version":
            await asyncio.sleep(0.5)
        if name.startswith("/api/") and headers.get("Authorization") != f"Bearer {TOKEN}":
            status, value = 401, {}
        elif name == "/api/items":
            status, value = 201, json.loads(body) | ({"title": "another"} if flaw == "other title" else {})
        elif name == "/api/upload":
            content = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
            if flaw == "short upload":
                content = content[:-1]
            status, value = 201, {"sha256": hashlib.sha256(content).hexdigest()}
        elif flaw == "bad gateway":
            status = 502
        elif flaw == "another's body":
            value = identity | {"release": "r2"}
        text = json.dumps(value).encode() if flaw != "no json" else b"<html>"
        lines = [f"HTTP/1.1 {status} Some words", "X-Release: r1"]
        lines += ["X-Slot: blue"] if flaw != "no slot" else []
        lines += ["Connection: close"] if close else []
        if name == "/stream":
            return await self.stream(writer, lines)
        length = len(text) + (5 if flaw == "cut body" else 0)
        writer.write("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode() + text)
        await writer.drain()
        return not close and flaw != "cut body"

    async def stream(self, writer, lines):
        writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        content = STREAM if self.flaw != "short stream" else STREAM[:-2000] + b"\nend\n"
        if self.flaw == "cut stream":
            content = content[:3000]
        for begin in range(0, len(content), 1000):
            piece = content[begin : begin + 1000]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if self.flaw != "cut stream":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return self.flaw != "cut stream"

    async def echo(self, reader, writer, headers):
        if self.flaw == "no upgrade":
            writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
            return
        proof = hashlib.sha1(headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = "wrong" if self.flaw == "wrong proof" else base64.b64encode(proof).decode()
        writer.write(f"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        for number in itertools.count():
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(await reader.readexactly(second & 127)))
            if first & 15 == 8:
                if self.flaw != "no goodbye":
                    writer.write(b"\x88\x02" + payload)
                break
            if self.flaw == "cuts" and number == 1:
                break
            if self.flaw == "closes" and number == 1:
                writer.write(b"\x88\x02" + struct.pack("!H", 1012))
                break
            if self.flaw == "wrong echo":
                payload = payload[::-1]
            # Two frames with a ping between them: the client must answer the ping and join the frames.
            writer.write(b"\x01\x02" + payload[:2] + b"\x89\x01p" + bytes([0x80, len(payload) - 2]) + payload[2:])
            pong = await reader.readexactly(7)
            assert pong[0] == 0x8A


def start(url, *arguments):
    return subprocess.Popen(
        [sys.executable, LOAD, "--url", url, "--host-header", "panel.test", *arguments],
        env={**os.environ, "PANEL_API_TOKEN": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def load(flaw, *arguments, seconds="0.5"):
    """Run the load client against a panel with a flaw; returns the summary, the exit status and the panel."""
    with Panel(flaw) as panel:
        process = start(panel.url, "--duration", seconds, *arguments)
        output, _ = process.communicate(timeout=20)
    return json.loads(output.splitlines()[-1]), process.returncode, panel


def test_all_kinds_together():
    kinds = ["get", "fresh", "post", "upload", "stream", "websocket"]
    summary, status, panel = load("", *(word for kind in kinds for word in (f"--{kind}", "2")), seconds="1.2")
    assert (status, summary["failed"], summary["closed_idle"]) == (0, 0, 0)
    assert set(summary["kinds"]) == set(kinds[:-1])
    assert all(tally["requests"] and tally["p99_ms"] >= tally["p50_ms"] > 0 for tally in summary["kinds"].values())
    assert summary["requests"] == sum(summary["slots"].values()) == sum(summary["releases"].values())
    assert summary["requests"] == sum(path != "/ws_panel" for _, path, _ in panel.requests)
    assert set(summary["slots"]) == {"blue"}
    assert set(summary["releases"]) == {"r1"}
    websockets = summary["websockets"]
    assert websockets.pop("messages") >= 6
    assert websockets == {"opened": 2, "refused": 0, "cut": 0, "mismatched": 0, "why": []}
    assert {headers["Host"] for _, _, headers in panel.requests} == {"panel.test"}
    assert {path for method, path, _ in panel.requests if method == "GET"} >= {"/version", "/health/live"}


def test_a_connection_is_reused_except_for_fresh():
    kept, _, panel = load("", "--get", "2")
    assert kept["requests"] > 20
    assert panel.connections == 2
    fresh, _, panel = load("", "--fresh", "2")
    assert panel.connections == fresh["requests"] > 5


@pytest.mark.parametrize(
    ("flaw", "kind", "words"),
    [
        ("resets", "get", "request 3 of its connection: ConnectionResetError"),
        ("ends", "get", "request 3 of its connection: the connection ended after 0 bytes"),
        ("ends", "post", "request 3 of its connection: the connection ended after 0 bytes"),
        ("bad gateway", "get", "expected 200, got 502"),
        ("bad gateway", "fresh", "expected 200, got 502"),
        ("no slot", "get", "expected a header x-slot, got none"),
        ("no slot", "stream", "expected a header x-slot, got none"),
        ("no json", "get", "expected a JSON object, got <html>"),
        ("another's body", "get", "header x-release is 'r1', the body"),
        ("cut body", "get", "the connection ended after "),
        ("other title", "post", "expected the title"),
        ("short upload", "upload", "expected the digest"),
        ("short stream", "stream", "expected 51254 bytes up to `end`, got 49259"),
        ("cut stream", "stream", "the connection ended after 0 bytes"),
    ],
)
def test_a_failure_is_noticed(flaw, kind, words):
    summary, status, _ = load(flaw, f"--{kind}", "1", seconds="0.3")
    tally = summary["kinds"][kind]
    assert status == 1
    assert summary["failed"] == tally["failed"] > 0
    assert words in tally["why"][0]


def test_a_timeout_is_a_failure():
    summary, status, _ = load("hangs", "--get", "1", "--timeout", "0.3")
    assert status == 1
    assert "no complete response within 0.3 s" in summary["kinds"]["get"]["why"][0]


def test_an_unreachable_server_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    process = start(url, "--duration", "0.5", "--get", "1", "--websocket", "1")
    summary = json.loads(process.communicate(timeout=20)[0].splitlines()[-1])
    assert "connecting: ConnectionRefusedError" in summary["kinds"]["get"]["why"][0]
    assert summary["websockets"]["refused"] > 0
    # The client waits between attempts, so that failed connections do not distort the figures.
    assert summary["kinds"]["get"]["requests"] < 10


def test_an_announced_close_is_not_a_failure():
    summary, status, panel = load("announces", "--get", "1")
    assert (status, summary["failed"], summary["closed_idle"]) == (0, 0, 0)
    assert panel.connections >= summary["requests"] // 3 > 1


def test_a_close_between_two_requests_is_counted_separately():
    # The pause after a POST leaves time for the end of the connection to arrive, as in a browser.
    summary, status, _ = load("closes idle", "--post", "1")
    assert (status, summary["failed"]) == (0, 0)
    assert summary["closed_idle"] > 1


@pytest.mark.parametrize(
    ("flaw", "count", "words"),
    [
        ("cuts", "cut", "the connection ended after 0 bytes"),
        ("closes", "cut", "closed by the server with code 1012"),
        ("no goodbye", "cut", "the connection ended after 0 bytes"),
        ("wrong echo", "mismatched", "sent b'echo "),
        ("no upgrade", "refused", "handshake: expected 101, got 400"),
        ("wrong proof", "refused", "handshake: wrong Sec-WebSocket-Accept 'wrong'"),
    ],
)
def test_a_broken_websocket_is_noticed(flaw, count, words):
    summary, status, _ = load(flaw, "--websocket", "1")
    websockets = summary["websockets"]
    assert status == 1
    assert websockets[count] > 0
    assert words in websockets["why"][0]
    assert not any(websockets[other] for other in {"cut", "mismatched", "refused"} - {count})


@pytest.mark.parametrize("how", ["standard input closes", "SIGTERM"])
def test_requests_in_flight_finish_before_the_stop(how):
    with Panel("slow") as panel:
        process = start(panel.url, "--get", "3", "--path", "/version")
        first = json.loads(process.stdout.readline())
        assert first["failed"] == 0
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=5)
    summary = json.loads(output.splitlines()[-1])
    assert process.returncode == 0
    assert summary["requests"] == len(panel.requests) == sum(summary["slots"].values()) > 3


def test_invalid_options_are_refused():
    for arguments, words in [
        (["--url", "https://127.0.0.1", "--get", "1"], "--url https://127.0.0.1: expected http://host[:port]"),
        (["--url", "http://127.0.0.1", "--post", "1"], "PANEL_API_TOKEN: missing"),
    ]:
        environment = {name: value for name, value in os.environ.items() if name != "PANEL_API_TOKEN"}
        command = [sys.executable, LOAD, *arguments, "--duration", "1"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)
        assert result.returncode != 0
        assert words in result.stderr
