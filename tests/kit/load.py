#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a deployed example panel with all kinds of traffic together, and verify each response.

Needs only the standard library of Python 3.11 or newer, so that it can be copied into a minimal container.
Runs for --duration seconds, or until its standard input closes, or until SIGTERM; then finishes requests in flight.
Prints a JSON object per line: one each second, and the summary as the last one. The exit status is 1 if anything
failed. --post and --upload need the panel's token in the environment variable PANEL_API_TOKEN.

    load.py --url http://10.0.0.2 --host-header panel.test --duration 60 --get 16 --websocket 20
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import math
import os
import signal
import struct
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

STREAM_SECONDS = 5
STREAM_CHUNK = 1024  # bytes
UPLOAD_SIZE = 64 * 1024  # bytes, sent in UPLOAD_PIECES over about half a second, longer than a switch
UPLOAD_PIECES = 5
PIECE_PAUSE = 0.1  # seconds
ECHO_PAUSE = 0.2  # seconds between two messages of a WebSocket
SHORT_LIFE = 10.0  # lifetime of every second WebSocket, in seconds; the others stay open until the end
RETRY_PAUSE = 0.1  # seconds after a failure, to limit the rate of requests to a dead server
KEPT_REASONS = 4
MESSAGE_LIMIT = 1024 * 1024  # bytes
NORMAL_CLOSURE = 1000
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class UnexpectedError(Exception):
    """Unexpected response of the server; the text contains the response."""


class ClosedError(UnexpectedError):
    """The server sent a WebSocket's close frame."""

    def __init__(self, code: int | None) -> None:
        """Store the close code; None if the frame had no code."""
        super().__init__(f"closed by the server with code {code}")
        self.code = code


@dataclass(frozen=True)
class Answer:
    """A complete response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Return whether the server announced that it closes the connection."""
        return self.headers.get("connection", "").lower() == "close"

    def expect(self, status: int) -> dict[str, object]:
        """Return the body as a JSON object.

        :raises UnexpectedError: another status, invalid JSON, or a missing header X-Release or X-Slot.
        """
        self.expect_status(status)
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UnexpectedError(f"expected a JSON object, got {self.start()}")
        return value

    def expect_status(self, status: int) -> None:
        """Check the status.

        :raises UnexpectedError: another status, or a missing header X-Release or X-Slot.
        """
        if self.status != status:
            raise UnexpectedError(f"expected {status}, got {self.status}: {self.start()}")
        for name in ("x-release", "x-slot"):
            if not self.headers.get(name):
                raise UnexpectedError(f"expected a header {name}, got none")

    def start(self) -> str:
        """Return the first 60 characters of the body, on one line."""
        return " ".join(self.body[:60].decode("utf-8", "replace").split()) or "nothing"


class Connection:
    """An HTTP/1.1 connection for consecutive requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wrap a connected pair of streams."""
        self.reader = reader
        self.writer = writer
        self.requests_sent = 0

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect.

        :raises OSError: the connection fails.
        """
        return cls(*await asyncio.open_connection(host, port))

    def ended(self) -> bool:
        """Return whether the server has closed the idle connection, as far as known here."""
        return self.reader.at_eof() or self.reader.exception() is not None

    def close(self) -> None:
        """Close the connection without waiting."""
        self.writer.close()

    async def send(self, pieces: Sequence[bytes]) -> Answer:
        """Send a request, with a pause between its pieces, and read the complete response.

        :raises OSError: the connection was reset or cannot be written to.
        :raises EOFError: the connection ended before the response.
        :raises UnexpectedError: the response is not valid HTTP/1.1.
        """
        self.requests_sent += 1
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(PIECE_PAUSE)
            self.writer.write(piece)
        status, headers = await self.head()
        return Answer(status, headers, await self._body(headers))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers; raises the errors of `send`."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise UnexpectedError(f"headers without an end: {error}") from error
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdigit():
            raise UnexpectedError(f"expected an HTTP/1.1 response, got {first[:80]!r}")
        pairs = (line.partition(":") for line in lines)
        return int(rest[:3]), {name.lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise UnexpectedError(f"expected a body of a known length, got Content-Length {length!r}")
        return await self.reader.readexactly(int(length))

    async def _chunks(self) -> bytes:
        whole = bytearray()
        while True:
            line = await self.reader.readuntil(b"\r\n")
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise UnexpectedError(f"expected a chunk's size, got {line[:40]!r}") from error
            chunk = await self.reader.readexactly(size + 2)
            if chunk[-2:] != b"\r\n":
                raise UnexpectedError(f"a chunk is longer than its size of {size} bytes")
            if not size:
                return bytes(whole)
            whole += chunk[:-2]


@dataclass
class Tally:
    """Results of the requests of one kind."""

    requests: int = 0
    failed: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    why: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """Return counts, latencies in milliseconds, and descriptions of the first failures."""
        ranked = sorted(self.seconds)
        return {
            "requests": self.requests,
            "failed": self.failed,
            "p50_ms": round(percentile(ranked, 50) * 1000, 2),
            "p99_ms": round(percentile(ranked, 99) * 1000, 2),
            "why": self.why,
        }


@dataclass
class WebSockets:
    """Results of the WebSockets; `cut` excludes those that this client closed."""

    opened: int = 0
    open: int = 0
    refused: int = 0
    cut: int = 0
    messages: int = 0
    mismatched: int = 0
    why: list[str] = field(default_factory=list)


def percentile(ranked: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted values; 0 if there are none."""
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)] if ranked else 0.0


Check = Callable[[Answer], None]


@dataclass(frozen=True)
class Kind:
    """A kind of request: a function that returns the next request and its check, and the use of the connection."""

    make: Callable[[], tuple[Sequence[bytes], Check]]
    description: str
    keep: bool = True
    pause: float = 0.0  # seconds between two requests
    lasts: float = 0.0  # normal duration of a response in seconds


class Load:
    """All clients, and their results."""

    def __init__(self, options: argparse.Namespace, token: str) -> None:
        """Prepare the clients, without connecting."""
        parts = urlsplit(options.url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._host_header = options.host_header or parts.netloc
        self._timeout = options.timeout
        self._gets = itertools.cycle([self._request("GET", path) for path in options.path])
        self._fresh = itertools.cycle([self._request("GET", path, "Connection: close") for path in options.path])
        self._token = token
        self._wanted = {kind: getattr(options, kind) for kind in ("get", "fresh", "post", "upload", "stream")}
        self._websockets_wanted = options.websocket
        self.stop = asyncio.Event()
        self.tallies = {kind: Tally() for kind, number in self._wanted.items() if number}
        self.websockets = WebSockets()
        self.closed_idle = 0
        self.slots: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self._began = time.monotonic()

    async def run(self) -> dict[str, Any]:
        """Run all clients until `stop` is set and all requests have ended; returns the summary."""
        kinds = {
            "get": Kind(self._make_get, "GET"),
            "fresh": Kind(self._make_fresh, "GET, a connection each", keep=False, pause=0.01),
            "post": Kind(self._make_post, "POST /api/items", pause=0.05),
            "upload": Kind(self._make_upload, "POST /api/upload", pause=0.2, lasts=PIECE_PAUSE * UPLOAD_PIECES),
            "stream": Kind(self._make_stream, f"GET /stream, {STREAM_SECONDS} s", lasts=STREAM_SECONDS),
        }
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for name, number in self._wanted.items():
                for _ in range(number):
                    group.create_task(self._client(name, kinds[name]))
            for number in range(self._websockets_wanted):
                group.create_task(self._websocket(SHORT_LIFE if number % 2 else float("inf")))
            group.create_task(self._report())
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Return the results so far."""
        seconds = self._elapsed()
        requests = sum(tally.requests for tally in self.tallies.values())
        return {
            "seconds": round(seconds, 2),
            "requests": requests,
            "failed": sum(tally.failed for tally in self.tallies.values()),
            "per_second": round(requests / seconds, 1),
            "closed_idle": self.closed_idle,
            "kinds": {name: tally.summary() for name, tally in self.tallies.items()},
            "websockets": {name: value for name, value in vars(self.websockets).items() if name != "open"},
            "slots": dict(self.slots),
            "releases": dict(self.releases),
        }

    async def _report(self) -> None:
        while not self.stop.is_set():
            await self._pause(1.0)
            print_json(
                {
                    "seconds": round(self._elapsed(), 2),
                    "requests": sum(tally.requests for tally in self.tallies.values()),
                    "failed": sum(tally.failed for tally in self.tallies.values()),
                    "websockets": self.websockets.open,
                }
            )

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake up if `stop` is set."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass

    async def _client(self, name: str, kind: Kind) -> None:
        """Send requests until `stop` is set, on one connection for as long as the server keeps it open."""
        tally = self.tallies[name]
        connection: Connection | None = None
        while not self.stop.is_set():
            if connection is not None and connection.ended():
                # The server closed the idle connection without notice. Any client would reconnect.
                self.closed_idle += 1
                connection.close()
                connection = None
            pieces, check = kind.make()
            began = time.monotonic()
            tally.requests += 1
            try:
                async with asyncio.timeout(self._timeout + kind.lasts):
                    if connection is None:
                        connection = await Connection.open(self._host, self._port)
                    answer = await connection.send(pieces)
                check(answer)
            except (OSError, EOFError, UnexpectedError) as error:
                tally.failed += 1
                where = f"request {connection.requests_sent} of its connection" if connection else "connecting"
                self._note(tally.why, f"{kind.description}, {where}: {describe_error(error, self._timeout)}")
                if connection is not None:
                    connection.close()
                    connection = None
                await self._pause(RETRY_PAUSE)
                continue
            tally.seconds.append(time.monotonic() - began)
            self.slots[answer.headers["x-slot"]] += 1
            self.releases[answer.headers["x-release"]] += 1
            if answer.closes or not kind.keep:
                connection.close()
                connection = None
            if kind.pause:
                await self._pause(kind.pause)
        if connection is not None:
            connection.close()

    def _note(self, why: list[str], text: str) -> None:
        if len(why) < KEPT_REASONS:
            why.append(f"{self._elapsed():.2f} s: {text}")

    def _request(self, method: str, path: str, *headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host_header}", "User-Agent: aapanel-load", *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def _make_get(self) -> tuple[Sequence[bytes], Check]:
        return (next(self._gets),), check_identity

    def _make_fresh(self) -> tuple[Sequence[bytes], Check]:
        return (next(self._fresh),), check_identity

    def _make_post(self) -> tuple[Sequence[bytes], Check]:
        title = f"load {os.urandom(8).hex()}"
        body = json.dumps({"title": title, "note": "x" * 500}).encode()

        def check(answer: Answer) -> None:
            if answer.expect(201).get("title") != title:
                raise UnexpectedError(f"expected the title {title!r}, got {answer.start()}")

        return (self._write("/api/items", "application/json", len(body)) + body,), check

    def _make_upload(self) -> tuple[Sequence[bytes], Check]:
        content, border = os.urandom(UPLOAD_SIZE), f"load-{os.urandom(8).hex()}"
        head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="load.bin"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
        step = -(-len(body) // UPLOAD_PIECES)
        pieces = [body[begin : begin + step] for begin in range(0, len(body), step)]
        pieces[0] = self._write("/api/upload", f"multipart/form-data; boundary={border}", len(body)) + pieces[0]

        def check(answer: Answer) -> None:
            if answer.expect(201).get("sha256") != hashlib.sha256(content).hexdigest():
                raise UnexpectedError(f"expected the digest of the upload, got {answer.start()}")

        return pieces, check

    def _write(self, path: str, kind: str, length: int) -> bytes:
        authorization = f"Authorization: Bearer {self._token}"
        return self._request("POST", path, authorization, f"Content-Type: {kind}", f"Content-Length: {length}")

    def _make_stream(self) -> tuple[Sequence[bytes], Check]:
        path = f"/stream?seconds={STREAM_SECONDS}&chunk={STREAM_CHUNK}"
        return (self._request("GET", path),), check_stream

    async def _websocket(self, life: float) -> None:
        """Open WebSockets one after another, each for `life` seconds, and send messages to be echoed."""
        while not self.stop.is_set():
            connection: Connection | None = None
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await Connection.open(self._host, self._port)
                    await self._shake_hands(connection)
            except (OSError, EOFError, UnexpectedError) as error:
                self.websockets.refused += 1
                self._note(self.websockets.why, f"handshake: {describe_error(error, self._timeout)}")
                if connection is not None:
                    connection.close()
                await self._pause(RETRY_PAUSE)
                continue
            self.websockets.opened += 1
            self.websockets.open += 1
            began = time.monotonic()
            try:
                while not self.stop.is_set() and time.monotonic() - began < life:
                    await self._echo(connection)
                    await self._pause(ECHO_PAUSE)
                async with asyncio.timeout(self._timeout):
                    await close_websocket(connection)
            except (OSError, EOFError, UnexpectedError) as error:
                self.websockets.cut += 1
                age = time.monotonic() - began
                self._note(self.websockets.why, f"open for {age:.2f} s: {describe_error(error, self._timeout)}")
            finally:
                self.websockets.open -= 1
                connection.close()

    async def _shake_hands(self, connection: Connection) -> None:
        key = base64.b64encode(os.urandom(16))
        connection.writer.write(
            self._request(
                "GET",
                "/ws_panel",
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Key: {key.decode()}",
                "Sec-WebSocket-Version: 13",
            )
        )
        status, headers = await connection.head()
        if status != 101:
            raise UnexpectedError(f"expected 101, got {status}")
        # RFC 6455, 4.2.2: proves that a WebSocket server has answered this request.
        proof = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
        if headers.get("sec-websocket-accept") != proof:
            raise UnexpectedError(f"wrong Sec-WebSocket-Accept {headers.get('sec-websocket-accept')!r}")

    async def _echo(self, connection: Connection) -> None:
        """Send a text and wait for its echo; raises the errors of `Connection.send` if the WebSocket ends."""
        sent = b"echo " + os.urandom(8).hex().encode()
        async with asyncio.timeout(self._timeout):
            connection.writer.write(frame(1, sent))
            received = await message(connection)
        self.websockets.messages += 1
        if received != sent:
            self.websockets.mismatched += 1
            self._note(self.websockets.why, f"sent {sent!r}, got {received[:40]!r}")


def check_identity(answer: Answer) -> None:
    """Check that release and slot in the body equal the headers: the response is complete, and not another client's."""
    body = answer.expect(200)
    for key in ("release", "slot"):
        if body.get(key) != answer.headers[f"x-{key}"]:
            raise UnexpectedError(f"header x-{key} is {answer.headers[f'x-{key}']!r}, the body: {answer.start()}")


def check_stream(answer: Answer) -> None:
    """Check the length and the end of a response of /stream."""
    answer.expect_status(200)
    length = STREAM_SECONDS * 10 * (STREAM_CHUNK + 1) + len(b"end\n")
    if len(answer.body) != length or not answer.body.endswith(b"\nend\n"):
        raise UnexpectedError(f"expected {length} bytes up to `end`, got {len(answer.body)}: {answer.body[-20:]!r}")


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame with a payload of less than 126 bytes, masked as required for clients (RFC 6455, 5.2 and 5.3)."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


async def message(connection: Connection) -> bytes:
    """Return the payload of the next message; answers pings before it (RFC 6455, 5.4 and 5.5).

    :raises ClosedError: the server closed the WebSocket.
    :raises UnexpectedError: the server sent an invalid frame.
    :raises OSError: the connection failed.
    :raises EOFError: the connection ended.
    """
    whole = b""
    while True:
        first, second = await connection.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack("!H", await connection.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await connection.reader.readexactly(8))[0]
        if second & 0x80 or size > MESSAGE_LIMIT:
            raise UnexpectedError(f"a frame of {size} bytes, masked: {bool(second & 0x80)}")
        payload = await connection.reader.readexactly(size)
        opcode = first & 0x0F
        if opcode == 9:  # ping
            connection.writer.write(frame(10, payload))
        elif opcode == 8:  # close
            raise ClosedError(struct.unpack("!H", payload[:2])[0] if payload else None)
        elif opcode <= 2:  # data; 10, a pong, is ignored
            whole += payload
            if first & 0x80:
                return whole


async def close_websocket(connection: Connection) -> None:
    """Close a WebSocket; raises the errors of `message` unless the server answers with a close frame."""
    connection.writer.write(frame(8, struct.pack("!H", NORMAL_CLOSURE)))
    try:
        while True:
            await message(connection)
    except ClosedError as closed:
        if closed.code != NORMAL_CLOSURE:
            raise


def describe_error(error: Exception, timeout: float) -> str:
    """Return a readable description of an error."""
    if isinstance(error, TimeoutError):
        return f"no complete response within {timeout:g} s"
    if isinstance(error, asyncio.IncompleteReadError):
        return f"the connection ended after {len(error.partial)} bytes of the expected data"
    return str(error) if isinstance(error, UnexpectedError) else f"{type(error).__name__}: {error}"


def print_json(value: dict[str, object]) -> None:
    """Print an object as a line of JSON, and flush."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--url", required=True, help="address of the panel: http://host[:port]")
    parser.add_argument("--host-header", help="Host header (default: that of the URL)")
    parser.add_argument("--duration", type=float, help="seconds (default: until standard input closes)")
    parser.add_argument("--timeout", type=float, default=10.0, help="maximum seconds for a response (10)")
    parser.add_argument("--path", action="append", help="path for GET; repeatable (/version, /health/live)")
    for kind, what in {
        "get": "clients that GET on persistent connections, without pauses",
        "fresh": "clients that GET on a new connection for each request",
        "post": "clients that POST items on persistent connections",
        "upload": f"clients that upload files of {UPLOAD_SIZE // 1024} KiB",
        "stream": f"clients that read streams of {STREAM_SECONDS} s",
        "websocket": "WebSockets that echo",
    }.items():
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help=f"{what} (0)")
    options = parser.parse_args(arguments)
    parts = urlsplit(options.url)
    if parts.scheme != "http" or not parts.hostname:
        parser.error(f"--url {options.url}: expected http://host[:port]")
    options.path = options.path or ["/version", "/health/live"]
    return options


async def work(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load until it is stopped; returns the summary."""
    load = Load(options, os.environ.get("PANEL_API_TOKEN", ""))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stop.set)
    if options.duration is not None:
        loop.call_later(options.duration, load.stop.set)
    else:

        def wait_for_the_end() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(load.stop.set)

        threading.Thread(target=wait_for_the_end, daemon=True).start()
    return await load.run()


def main(arguments: list[str]) -> int:
    """Run the load; returns the exit status."""
    options = parse(arguments)
    if (options.post or options.upload) and not os.environ.get("PANEL_API_TOKEN"):
        sys.exit("PANEL_API_TOKEN: missing; --post and --upload need the panel's token in the environment")
    summary = asyncio.run(work(options))
    print_json(summary)
    websockets = (summary["websockets"][name] for name in ("refused", "cut", "mismatched"))
    return 1 if summary["failed"] or any(websockets) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
