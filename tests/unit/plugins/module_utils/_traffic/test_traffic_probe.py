# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import probe
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.probe import Answer

Reply = Callable[[str, dict[str, str], asyncio.StreamWriter], Awaitable[None]]
SOON = 0.5  # seconds; timeout of a request


class Server:
    """A real server with a handler for each connection."""

    def __init__(self, reply: Reply) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._reply = reply
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self, where: Path | None = None, context: ssl.SSLContext | None = None) -> int:
        """Listen on a path, or on a free port; return the port."""
        if where:
            starting = asyncio.start_unix_server(self._serve, str(where))
        else:
            starting = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        return 0 if where else server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        async def cancel() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in rest if line)
            self.asked.append((first, headers))
            await self._reply(head, headers, writer)
            writer.close()


def page(status: str = "200 OK", *headers: str, body: str = "{}") -> Reply:
    """Return a handler that answers with one page."""
    lines = [f"HTTP/1.1 {status}", "X-Release: 2-abc", "X-Slot: green", f"Content-Length: {len(body)}", *headers]

    async def reply(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        await writer.drain()

    return reply


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    running: list[Server] = []

    def start(reply: Reply) -> Server:
        running.append(Server(reply))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=panel.example",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_a_page_over_a_unix_socket(serve, tmp_path: Path) -> None:
    server = serve(page(body='{"status": "ok"}'))
    server.listen(tmp_path / "s")
    answer = probe.get(probe.unix(tmp_path / "s"), "panel.example", probe.READY)
    assert answer == Answer(200, "2-abc", "green", '{"status": "ok"}')
    assert answer.ok
    assert not answer.broken
    assert str(answer) == '200 from release 2-abc in slot green: {"status": "ok"}'
    first, headers = server.asked[0]
    assert first == "GET /health/ready HTTP/1.1"
    assert headers["host"] == "panel.example"


@pytest.mark.parametrize(
    ("status", "ok", "broken"),
    [
        ("200 OK", True, False),
        ("404 Not Found", False, False),
        ("302 Found", False, False),
        ("500 Oh", False, True),
        ("502 Bad", False, True),
        ("503 Later", False, True),
    ],
)
def test_a_page_over_tcp(serve, status: str, ok: bool, broken: bool) -> None:
    answer = probe.get(probe.tcp("127.0.0.1", serve(page(status)).listen()), "panel.example", "/")
    assert (answer.status, answer.ok, answer.broken) == (int(status[:3]), ok, broken)


def test_any_address_is_this_machine(serve) -> None:
    assert probe.get(probe.tcp("0.0.0.0", serve(page()).listen()), "panel.example", "/").ok


def test_a_long_page_is_truncated(serve) -> None:
    answer = probe.get(probe.tcp("127.0.0.1", serve(page(body="x" * 100_000)).listen()), "panel.example", "/")
    assert answer.ok
    assert len(answer.text) == probe._BODY


@pytest.mark.parametrize("code", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_https_is_followed_to_this_host(serve, certificate: ssl.SSLContext, code: str) -> None:
    secure = serve(page(body="secure"))
    plain = serve(page(code, "Location: https://panel.example/health/ready"))
    https_port = secure.listen(context=certificate)
    answer = probe.through_edge("panel.example", plain.listen(), https_port, probe.READY)
    assert (answer.status, answer.text) == (200, "secure")
    assert secure.asked[0][1]["host"] == "panel.example"


@pytest.mark.parametrize("location", ["Location: http://panel.example/login", "Location: /login", "X-No: location"])
def test_any_other_redirect_is_an_answer(serve, location: str) -> None:
    port = serve(page("302 Found", location)).listen()
    assert probe.through_edge("panel.example", port, 1, "/").status == 302


def test_a_redirect_to_a_closed_port_is_no_answer(serve) -> None:
    port = serve(page("301 Moved", "Location: https://panel.example/")).listen()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        answer = probe.through_edge("panel.example", port, free.getsockname()[1], "/")
    assert answer.status == 0
    assert "refused" in str(answer)


# --- no answer --------------------------------------------------------------------------------------------------------


async def silence(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip_header(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(SOON / 10)


async def drip_body(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(SOON / 10)


async def hang_up(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.close()


async def nonsense(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01\x02 not http\r\n\r\n")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reply", [silence, drip_header, drip_body, hang_up, nonsense])
def test_an_answer_that_takes_too_long_is_no_answer(
    serve, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, reply: Reply, secure: bool
) -> None:
    monkeypatch.setattr(probe, "_TIMEOUT", SOON)
    connect = probe.tcp("127.0.0.1", serve(reply).listen(context=certificate if secure else None))
    begin = time.monotonic()
    answer = probe.get(probe.tls(connect, "panel.example") if secure else connect, "panel.example", "/")
    assert time.monotonic() - begin < SOON * 4
    assert answer.status == 0
    assert answer.broken
    assert answer.text
    assert str(answer).startswith("no answer (")


def test_a_server_that_accepts_no_connection_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_TIMEOUT", SOON)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        begin = time.monotonic()
        assert probe.get(probe.unix(tmp_path / "s"), "panel.example", "/").status == 0
        assert time.monotonic() - begin < SOON * 4


def test_a_closed_port_is_no_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "dead"))
    assert "refused" in probe.get(probe.unix(tmp_path / "dead"), "panel.example", "/").text
    assert "No such file" in probe.get(probe.unix(tmp_path / "none"), "panel.example", "/").text
    assert "too long" in probe.get(probe.unix(tmp_path / ("x" * 120)), "panel.example", "/").text


@pytest.mark.parametrize("path", ["/ä", "/a b", "/\n"])
def test_an_invalid_path_is_no_answer(serve, path: str) -> None:
    assert probe.get(probe.tcp("127.0.0.1", serve(page()).listen()), "panel.example", path).status == 0


# --- WebSockets -------------------------------------------------------------------------------------------------------


def handshake(accept: str | None = None, status: str = "101 Switching Protocols") -> Reply:
    async def reply(head: str, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
        # The original value of the header: `asked` is in lower case.
        key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        value = base64.b64encode(digest).decode() if accept is None else accept
        writer.write(
            f"HTTP/1.1 {status}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Release: 2-abc\r\n"
            f"Sec-WebSocket-Accept: {value}\r\n\r\n".encode()
        )
        await writer.drain()
        await asyncio.sleep(60)

    return reply


def test_a_websocket_opens(serve, tmp_path: Path) -> None:
    server = serve(handshake())
    server.listen(tmp_path / "s")
    answer = probe.websocket(probe.unix(tmp_path / "s"), "panel.example", "/ws")
    assert answer.upgraded
    assert answer.release == "2-abc"
    first, headers = server.asked[0]
    assert first == "GET /ws HTTP/1.1"
    assert (headers["upgrade"], headers["sec-websocket-version"]) == ("websocket", "13")
    assert len(base64.b64decode(headers["sec-websocket-key"] + "==")) >= 16


def test_each_handshake_has_its_own_key(serve) -> None:
    server = serve(handshake())
    port = server.listen()
    for _ in range(2):
        assert probe.websocket(probe.tcp("127.0.0.1", port), "panel.example", "/ws").upgraded
    assert server.asked[0][1]["sec-websocket-key"] != server.asked[1][1]["sec-websocket-key"]


@pytest.mark.parametrize("accept", ["", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="])
def test_a_wrong_accept_key_is_no_websocket(serve, accept: str) -> None:
    answer = probe.websocket(probe.tcp("127.0.0.1", serve(handshake(accept)).listen()), "panel.example", "/ws")
    assert not answer.upgraded
    assert "another key" in answer.text


@pytest.mark.parametrize(("reply", "status"), [(page("404 Not Found"), 404), (page(), 200), (hang_up, 0)])
def test_an_answer_without_upgrade_is_no_websocket(serve, reply: Reply, status: int) -> None:
    answer = probe.websocket(probe.tcp("127.0.0.1", serve(reply).listen()), "panel.example", "/ws")
    assert (answer.status, answer.upgraded) == (status, False)
