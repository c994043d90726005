#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a deployed example panel over the network.

Needs Python 3.10 and only the standard library, so that it can be copied into a bare container.
Prints a line for each check: `ok pages 0.12 s`, or `FAIL pages: GET /: expected …, got …`. Exit status 1 if one failed.

    probe.py --url http://10.0.0.2 --host-header panel.test pages websocket upload
    probe.py --url http://10.0.0.2 --host-header panel.test --expect release=1.0-ab12 --expect slot=green health
"""

from __future__ import annotations

import argparse
import base64
import gzip as gzip_codec
import hashlib
import http.client
import inspect
import json
import os
import re
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
YEAR = 31536000  # seconds
SPOOF = "203.0.113.9"  # RFC 5737: an address for documentation
BAD_GATEWAY = {502, 503, 504}
OWN_DEFAULT = re.compile(rb"<center>nginx|The requested URL was not found on the server", re.I)


class ProbeError(Exception):
    """A check failed; the text has the request, what was expected, and what was received."""


class Answer(NamedTuple):
    """A complete response."""

    request: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def expect(self, status: int) -> Answer:
        """Return the answer itself.

        :raises ProbeError: it has another status.
        """
        if self.status != status:
            raise ProbeError(f"{self.request}: expected {status}, got {self.status}: {self.start()}")
        return self

    def start(self) -> str:
        """Return the first 160 characters of the body, on one line."""
        return " ".join(self.body[:160].decode("utf-8", "replace").split())

    def json(self) -> dict[str, object]:
        """Return the body as a JSON object.

        :raises ProbeError: it is something else.
        """
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ProbeError(f"{self.request}: expected a JSON object, got {self.start()}")
        return value


@dataclass
class Target:
    """The panel to check, and the values that are expected of it."""

    url: str
    host_header: str
    token: str = ""
    login_path: str = "/login"
    timeout: float = 10.0
    insecure: bool = False
    ca: str | None = None
    expected: dict[str, list[str]] = field(default_factory=dict)

    def connect(self, alpn: str = "http/1.1") -> socket.socket:
        """Return a connected socket, with TLS for https."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        address = (parts.hostname or "", parts.port or (443 if secure else 80))
        plain = socket.create_connection(address, self.timeout)
        if not secure:
            return plain
        context = ssl.create_default_context(cafile=self.ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        try:
            return context.wrap_socket(plain, server_hostname=self.host_header.partition(":")[0])
        except OSError:
            plain.close()
            raise

    @contextmanager
    def open(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Iterator[tuple[http.client.HTTPResponse, str]]:
        """Send a request on a new connection; yield the unread response and the local address.

        Header names are written with underscores; a header with the value "" is omitted.
        """
        connection = http.client.HTTPConnection("unused", timeout=self.timeout)
        connection.sock = self.connect()
        try:
            local = str(connection.sock.getsockname()[0])
            wanted = {"Host": self.host_header, "User-Agent": BROWSER, "Accept-Encoding": "identity"}
            wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                wanted["Content-Length"] = str(len(body))
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in wanted.items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders(body)
            yield connection.getresponse(), local
        finally:
            connection.close()

    def request(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Send a request, and return the complete answer."""
        with self.open(path, method=method, body=body, **headers) as (response, _):
            return Answer(f"{method} {path}", response.status, response.headers, response.read())

    def write(self, path: str, body: bytes, kind: str) -> Answer:
        """Send a POST with the bearer token."""
        if not self.token:
            raise ProbeError(f"POST {path} needs the panel's token: --token-file, or PROBE_TOKEN in the environment")
        return self.request(path, method="POST", body=body, Content_Type=kind, Authorization=f"Bearer {self.token}")

    def compare(self, key: str, request: str, received: object) -> None:
        """Compare a value with those of --expect.

        :raises ProbeError: --expect names `key` with other values.
        """
        wanted = self.expected.get(key)
        if wanted and str(received) not in wanted:
            raise ProbeError(f"{request}: expected {key}={' or '.join(wanted)}, got {received!r}")


def pages(target: Target) -> str:
    """Check / and the login page as a browser, that a script gets no login page, and /version as JSON."""
    front = target.request("/").expect(200)
    if b"<html" not in front.body:
        raise ProbeError(f"GET /: expected a page, got {front.start()}")
    login = target.request(target.login_path).expect(200)
    if b'name="csrf_token"' not in login.body:
        raise ProbeError(f"{login.request}: expected a login form, got {login.start()}")
    script = target.request(target.login_path, User_Agent="curl/8.0")
    if script.status == http.HTTPStatus.OK:
        raise ProbeError(f"{script.request} as curl: expected a refusal, got 200")
    version = target.request("/version").expect(200)
    body = version.json()
    for key in ("release", "slot", "version"):
        target.compare(key, version.request, body.get(key))
    return f"version={body.get('version')} release={body.get('release')} slot={body.get('slot')}"


def health(target: Target) -> str:
    """Check that /health/live and /health/ready are 200 and name release and slot in headers."""
    for path in ("/health/live", "/health/ready"):
        answer = target.request(path).expect(200)
        for header in ("X-Release", "X-Slot"):
            value = answer.headers.get(header)
            if not value:
                raise ProbeError(f"{answer.request}: expected a header {header}, got none")
            target.compare(header.partition("-")[2].lower(), answer.request, value)
    answer.json()
    return f"release={answer.headers['X-Release']} slot={answer.headers['X-Slot']}"


def websocket(target: Target) -> str:
    """Check that /ws_panel upgrades (RFC 6455), and echoes a text and 64 KiB of bytes."""
    key = base64.b64encode(os.urandom(16)).decode()
    with target.connect() as connection, connection.makefile("rb") as reader:
        request = (
            f"GET /ws_panel HTTP/1.1\r\nHost: {target.host_header}\r\nUser-Agent: {BROWSER}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.sendall(request.encode())
        status = reader.readline(1000).decode("latin-1").strip()
        headers = http.client.parse_headers(reader)
        if " 101 " not in status + " ":
            raise ProbeError(f"GET /ws_panel with Upgrade: expected 101, got {status or 'nothing'}")
        # RFC 6455, 4.2.2: proves that a WebSocket server has answered this request.
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        if headers.get("Sec-WebSocket-Accept") != base64.b64encode(digest).decode():
            raise ProbeError(f"GET /ws_panel: wrong Sec-WebSocket-Accept {headers.get('Sec-WebSocket-Accept')!r}")
        for opcode, sent in ((1, b"ping " + key.encode()), (2, os.urandom(65536))):
            connection.sendall(_frame(opcode, sent))
            received_opcode, received = _message(connection, reader)
            if (received_opcode, received) != (opcode, sent):
                raise ProbeError(
                    f"/ws_panel: sent {len(sent)} bytes as opcode {opcode}, got {len(received)} as {received_opcode}: "
                    f"{'the same' if received == sent else 'different'} bytes"
                )
        connection.sendall(_frame(8, struct.pack("!H", 1000)))
    return ""


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return a complete frame, masked as a client's must be (RFC 6455, 5.2 and 5.3)."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 (the numbers of the RFC)
        length = struct.pack("!B", 0x80 | size)
    elif size < 65536:  # noqa: PLR2004 (as above)
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    mask = os.urandom(4)
    stream = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
    return bytes([0x80 | opcode]) + length + mask + masked


def _message(connection: socket.socket, reader: BinaryIO) -> tuple[int, bytes]:
    """Return the next message, of one or more frames; answer pings before it (RFC 6455, 5.4 and 5.5)."""
    opcode, whole = 0, b""
    while True:
        first, second = _exactly(reader, 2)
        size = second & 0x7F
        if size == 126:  # noqa: PLR2004 (the numbers of the RFC)
            size = struct.unpack("!H", _exactly(reader, 2))[0]
        elif size == 127:  # noqa: PLR2004 (as above)
            size = struct.unpack("!Q", _exactly(reader, 8))[0]
        if second & 0x80 or size > 1024 * 1024:
            raise ProbeError(f"/ws_panel: a frame of {size} bytes, masked: {bool(second & 0x80)}")
        payload = _exactly(reader, size)
        kind = first & 0x0F
        if kind == 9:  # noqa: PLR2004 (ping)
            connection.sendall(_frame(10, payload))
        elif kind == 8:  # noqa: PLR2004 (close)
            code = struct.unpack("!H", payload[:2])[0] if payload else None
            raise ProbeError(f"/ws_panel: closed by the server with code {code}")
        elif kind <= 2:  # noqa: PLR2004 (data; 10, a pong, is ignored)
            opcode, whole = kind or opcode, whole + payload
            if first & 0x80:
                return opcode, whole


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ProbeError(f"/ws_panel: the connection ended after {len(data)} of {size} bytes")
    return data


def upload(target: Target) -> str:
    """Check that an upload of 256 KiB is accepted, and downloaded unchanged."""
    content, border = os.urandom(256 * 1024), f"probe-{os.urandom(8).hex()}"
    head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="../probe.bin"\r\n'
    body = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content + f"\r\n--{border}--\r\n".encode()
    answer = target.write("/api/upload", body, f"multipart/form-data; boundary={border}").expect(201)
    url = str(answer.json().get("url", ""))
    back = target.request(url).expect(200)
    if back.body != content:
        raise ProbeError(
            f"GET {url}: expected the {len(content)} bytes that were sent, got {len(back.body)} other bytes"
        )
    return f"path={url}"


def static(target: Target) -> str:
    """Check that a static file may be cached for a year, has an ETag that gives 304, and is compressed on request."""
    found = re.search(rb'href="(/static/[^"]+\.css[^"]*)"', target.request("/").expect(200).body)
    if not found:
        raise ProbeError("GET /: expected a link to a style sheet below /static/, got none")
    path = found[1].decode()
    answer = target.request(path, Accept_Encoding="gzip").expect(200)
    cached = re.search(r"max-age=(\d+)", answer.headers.get("Cache-Control", ""))
    if not cached or int(cached[1]) < YEAR:
        raise ProbeError(
            f"GET {path}: expected max-age={YEAR}, got Cache-Control {answer.headers.get('Cache-Control')!r}"
        )
    if answer.headers.get("Content-Encoding") != "gzip":
        raise ProbeError(f"GET {path}: expected gzip, got Content-Encoding {answer.headers.get('Content-Encoding')!r}")
    tag = answer.headers.get("ETag")
    if not tag:
        raise ProbeError(f"GET {path}: expected an ETag, got none")
    target.request(path, Accept_Encoding="gzip", If_None_Match=tag).expect(304)
    return path


def gzip(target: Target) -> str:
    """Check that a page is compressed on request only."""
    packed, plain = target.request("/", Accept_Encoding="gzip").expect(200), target.request("/").expect(200)
    encoding = packed.headers.get("Content-Encoding")
    if encoding != "gzip":
        raise ProbeError(f"GET / accepting gzip: expected Content-Encoding gzip, got {encoding!r}")
    if "accept-encoding" not in packed.headers.get("Vary", "").lower():
        raise ProbeError(f"GET / accepting gzip: expected Vary: Accept-Encoding, got {packed.headers.get('Vary')!r}")
    if b"<html" not in gzip_codec.decompress(packed.body):
        raise ProbeError("GET / accepting gzip: expected a compressed page, got something else")
    if plain.headers.get("Content-Encoding"):
        raise ProbeError(f"GET / without gzip: expected no encoding, got {plain.headers['Content-Encoding']!r}")
    return f"{len(plain.body)} to {len(packed.body)} bytes"


def unknown_host(target: Target) -> str:
    """Check that an unknown or missing Host is refused: closed, reset, or 400, 403, 421."""
    target.request("/").expect(200)
    for host in ("unknown.invalid", ""):
        try:
            answer = target.request("/", Host=host)
        except (ConnectionError, http.client.RemoteDisconnected, ssl.SSLError):
            continue
        if answer.status not in {400, 403, 421}:
            raise ProbeError(f"GET / for Host {host!r}: expected a closed connection, got {answer.status}")
    return ""


def errors(target: Target) -> str:
    """Check that a missing page is 404 with the panel's own page, for browsers and scripts."""
    for agent in (BROWSER, "curl/8.0"):
        answer = target.request("/no/such/page", User_Agent=agent).expect(404)
        _own_page(answer)
    return ""


def unavailable(target: Target) -> str:
    """Check that, with the app stopped, pages are 502, 503 or 504 with the panel's own page."""
    answer = target.request("/")
    if answer.status not in BAD_GATEWAY:
        raise ProbeError(f"GET / with the app stopped: expected 502, 503 or 504, got {answer.status}")
    _own_page(answer)
    return str(answer.status)


def _own_page(answer: Answer) -> None:
    if b"<html" not in answer.body or OWN_DEFAULT.search(answer.body):
        raise ProbeError(f"{answer.request}: {answer.status}: expected the panel's own page, got {answer.start()}")


def stream(target: Target) -> str:
    """Check that a response of two seconds arrives in pieces, not all at its end."""
    path, arrivals, tail, began = "/stream?seconds=2&chunk=4096", [], b"", time.monotonic()
    with target.open(path) as (response, _):
        if response.status != http.HTTPStatus.OK:
            raise ProbeError(f"GET {path}: expected 200, got {response.status}")
        while data := response.read1(65536):
            arrivals.append(time.monotonic() - began)
            tail = (tail + data)[-4:]
    if tail != b"end\n":
        raise ProbeError(f"GET {path}: expected the last line to be end, got {tail!r}: the response was cut")
    spread = arrivals[-1] - arrivals[0]
    if spread < 1:
        raise ProbeError(f"GET {path}: expected pieces over 2 s, got all within {spread:.2f} s: buffered on the way")
    return f"{len(arrivals)} pieces over {spread:.1f} s"


def item(target: Target) -> str:
    """Create an item through the API, read it back, and print its ID and title."""
    title = f"probe {os.urandom(8).hex()}"
    created = target.write("/api/items", json.dumps({"title": title}).encode(), "application/json").expect(201)
    key = created.json().get("id")
    back = target.request(f"/api/items/{key}").expect(200)
    if back.json().get("title") != title:
        raise ProbeError(f"{back.request}: expected the title {title!r}, got {back.start()}")
    return f"path=/api/items/{key} id={key} title={title}"


def background(target: Target) -> str:
    """Check that a background job is accepted at once and done later."""
    started = target.write("/api/background", b'{"title": "probe", "seconds": 0.5}', "application/json").expect(202)
    path = f"/api/background/{started.json().get('id')}"
    deadline = time.monotonic() + target.timeout
    while (state := target.request(path).expect(200).json().get("state")) != "done":
        if time.monotonic() > deadline:
            raise ProbeError(f"GET {path}: expected the state done within {target.timeout:g} s, got {state!r}")
        time.sleep(0.1)
    return f"path={path}"


def headers(target: Target) -> str:
    """Check that the app sees the client's real address, not a forged one, and the requested Host."""
    with target.open("/api/whoami", X_Real_IP=SPOOF, X_Forwarded_For=SPOOF) as (response, local):
        answer = Answer("GET /api/whoami", response.status, response.headers, response.read()).expect(200)
    body = answer.json()
    own = target.expected.get("ip", [local])
    if body.get("ip") not in own:
        raise ProbeError(f"GET /api/whoami: expected ip {' or '.join(own)}, got {body.get('ip')!r}")
    if body.get("host") != target.host_header:
        raise ProbeError(f"GET /api/whoami: expected host {target.host_header!r}, got {body.get('host')!r}")
    scheme = urlsplit(target.url).scheme
    if body.get("scheme") != scheme:
        raise ProbeError(f"GET /api/whoami: expected scheme {scheme!r}, got {body.get('scheme')!r}")
    return f"ip={body['ip']}"


def kept(target: Target) -> str:
    """Check that each --expect path=… is still 200, for example after a reboot or a deploy."""
    wanted = target.expected.get("path")
    if not wanted:
        raise ProbeError("needs --expect path=…, at least once")
    for path in wanted:
        target.request(path).expect(200)
    return f"{len(wanted)} paths"


def metrics_closed(target: Target) -> str:
    """Check that /health/metrics is 403 and /health/live is 200."""
    target.request("/health/live").expect(200)
    target.request("/health/metrics").expect(403)
    return ""


def http2(target: Target) -> str:
    """Check that TLS offers HTTP/2, and that SETTINGS follow the preface (RFC 9113, 3.4)."""
    if urlsplit(target.url).scheme != "https":
        raise ProbeError(f"needs an https URL, not {target.url}: HTTP/2 is negotiated in TLS")
    with target.connect("h2") as connection:
        chosen = connection.selected_alpn_protocol() if isinstance(connection, ssl.SSLSocket) else None
        if chosen != "h2":
            raise ProbeError(f"TLS to {target.url} offering h2: expected h2, got {chosen!r}")
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        with connection.makefile("rb") as reader:
            first = reader.read(9)
    if len(first) != 9 or first[3] != 4:  # noqa: PLR2004 (a frame's header is 9 bytes, SETTINGS is type 4)
        raise ProbeError(f"HTTP/2 preface: expected a SETTINGS frame, got {first.hex() or 'nothing'}")
    return ""


Check = Callable[[Target], str]
CHECKS: dict[str, Check] = {
    "pages": pages,
    "health": health,
    "websocket": websocket,
    "upload": upload,
    "static": static,
    "gzip": gzip,
    "unknown-host": unknown_host,
    "errors": errors,
    "unavailable": unavailable,
    "stream": stream,
    "item": item,
    "background": background,
    "headers": headers,
    "kept": kept,
    "metrics-closed": metrics_closed,
    "http2": http2,
}


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Limit the time of a whole check, because a socket's timeout starts again with every byte.

    :raises ProbeError: the time is over.
    """

    def ring(_signal: int, _frame: object) -> None:
        raise ProbeError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(name: str, target: Target) -> dict[str, object]:
    """Run a check; return its name, whether it passed, its seconds, and a detail or the error."""
    began = time.monotonic()
    try:
        with _within(3 * target.timeout):
            passed, detail = True, CHECKS[name](target)
    except ProbeError as failure:
        passed, detail = False, str(failure)
    except (OSError, http.client.HTTPException, EOFError, ValueError) as error:
        passed, detail = False, f"{target.url} for Host {target.host_header}: {type(error).__name__}: {error}"
    return {"check": name, "ok": passed, "seconds": round(time.monotonic() - began, 3), "detail": detail}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    listing = "\n".join(f"  {name:14}{inspect.getdoc(check)}" for name, check in CHECKS.items())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"checks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checks", nargs="+", choices=CHECKS, metavar="CHECK", help="see below")
    parser.add_argument("--url", required=True, help="address to connect to: http://host[:port] or https://…")
    parser.add_argument("--host-header", help="value of the Host header (default: from the URL)")
    parser.add_argument("--login-path", default="/login", help="path of the login page (default: /login)")
    parser.add_argument("--token-file", help="file with the API token (default: PROBE_TOKEN in the environment)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        help="seconds for each step; a check may take three times as long (default: 10)",
    )
    parser.add_argument("--ca", help="file with the CA certificate")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="expected release=, slot=, version=, ip=, path=; repeated: one value of a key, but all paths, must match",
    )
    parser.add_argument("--json", action="store_true", help="print a list of results instead of lines")
    options = parser.parse_args(arguments)
    known = {"release", "slot", "version", "ip", "path"}
    for pair in options.expect:
        if pair.partition("=")[0] not in known or "=" not in pair:
            parser.error(f"--expect {pair}: expected KEY=VALUE with a KEY of {', '.join(sorted(known))}")
    if urlsplit(options.url).scheme not in {"http", "https"} or not urlsplit(options.url).hostname:
        parser.error(f"--url {options.url}: expected http://host[:port] or https://host[:port]")
    return options


def main(arguments: list[str]) -> int:
    """Run the checks in the given order, and return the exit status."""
    options = parse(arguments)
    token = os.environ.get("PROBE_TOKEN", "")
    if options.token_file:
        token = Path(options.token_file).read_text(encoding="utf-8")
    expected: dict[str, list[str]] = {}
    for pair in options.expect:
        key, _, value = pair.partition("=")
        expected.setdefault(key, []).append(value)
    target = Target(
        url=options.url,
        host_header=options.host_header or urlsplit(options.url).netloc,
        token=token.strip(),
        login_path=options.login_path,
        timeout=options.timeout,
        insecure=options.insecure,
        ca=options.ca,
        expected=expected,
    )
    results = []
    for name in options.checks:
        result = run(name, target)
        results.append(result)
        if not options.json:
            detail = f" {result['detail']}" if result["detail"] else ""
            passed = f"ok {name} {result['seconds']:.2f} s{detail}"
            sys.stdout.write((passed if result["ok"] else f"FAIL {name}:{detail}") + "\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
