# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime in real gunicorn processes with two gevent workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import requests
import websocket
from gunicorn.config import KNOWN_SETTINGS
from runtime_server import clean_environ, eventually

RENEWAL = "Autorestarting worker"  # in gunicorn's log


def over_socket(server, request: bytes) -> bytes:
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(10)
        connection.connect(server.socket)
        connection.sendall(request)
        answer = b""
        while received := connection.recv(65536):
            answer += received
        return answer


def test_files_of_an_earlier_run_are_removed_and_no_control_socket_is_created(server):
    assert not (server.metrics_folder / "counter_w9.db").exists(), "its values would be added to the new ones"
    assert not list(server.metrics_folder.parent.rglob("gunicorn.ctl")), "the slots would remove each other's socket"


def test_each_response_names_its_release_and_slot(server):
    for path in ("/", "/fail", "/missing", "/health/live", "/health/ready", "/health/metrics", "/stream", "/file"):
        headers = requests.get(server.url + path, timeout=10).raw.headers
        assert (headers.getlist("X-Release"), headers.getlist("X-Slot")) == (["r-1"], ["blue"]), path


def test_metrics_are_the_sum_of_all_workers(server):
    before = server.metric('aapanel_http_requests_total{method="GET",status="200"}')
    with ThreadPoolExecutor(8) as pool:
        pids = {r.json()["pid"] for r in pool.map(lambda _: requests.get(server.url, timeout=10), range(100))}
    assert len(pids) == 2, "only one worker has answered, so the test proves nothing"
    # A request is counted when its body is closed, and the client does not wait for that.
    eventually(lambda: server.metric('aapanel_http_requests_total{method="GET",status="200"}') == before + 100)
    seen = {server.metric('aapanel_http_requests_total{method="GET",status="200"}') for _ in range(10)}
    assert seen == {before + 100}
    text = requests.get(f"{server.url}/health/metrics", timeout=10).text
    for place in ("w1", "w2"):
        assert f'process_resident_memory_bytes{{worker="{place}"}}' in text
        assert f'process_open_fds{{worker="{place}"}}' in text
        assert f'process_start_time_seconds{{worker="{place}"}}' in text
    assert 'aapanel_release_info{environment="development"' in text


def test_health_routes_answer_head_without_a_body_and_refuse_other_methods(server):
    for path in ("/health/live", "/health/ready", "/health/metrics"):
        answer = requests.head(server.url + path, timeout=10)
        assert answer.status_code == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert answer.content == b""
    refused = requests.post(f"{server.url}/health/ready", timeout=10)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_the_headers_of_the_proxy_are_trusted_over_the_unix_socket_only(server):
    request = b"GET / HTTP/1.1\r\nHost: p\r\nConnection: close\r\nX-Real-IP: %s\r\nX-Forwarded-Proto: https\r\n\r\n"
    body = json.loads(over_socket(server, request % b"203.0.113.7").partition(b"\r\n\r\n")[2])
    assert (body["address"], body["scheme"]) == ("203.0.113.7", "https")
    for forged in (b"not an address", b"203.0.113.7\r\nX-Real-IP: 127.0.0.1", b"127.0.0.1, 203.0.113.7"):
        body = json.loads(over_socket(server, request % forged).partition(b"\r\n\r\n")[2])
        assert not body["address"]
    over_tcp = requests.get(server.url, headers={"X-Real-IP": "203.0.113.7"}, timeout=10).json()
    assert over_tcp["address"] == "127.0.0.1"


def test_a_stream_arrives_chunk_by_chunk(server):
    started = time.monotonic()
    with requests.get(f"{server.url}/stream", params={"chunks": 40}, stream=True, timeout=10) as answer:
        next(answer.iter_content(100))
        assert time.monotonic() - started < 1.5, "40 chunks take 2 s: the first arrived with the last"


def test_a_request_of_a_disconnected_client_is_no_longer_in_flight(server):
    eventually(lambda: server.metric("aapanel_http_requests_in_flight") == 0)
    with closing(socket.create_connection(("127.0.0.1", server.port))) as client:
        client.sendall(b"GET /stream?chunks=100000 HTTP/1.1\r\nHost: p\r\n\r\n")
        client.recv(1000)
        eventually(lambda: server.metric("aapanel_http_requests_in_flight") == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: server.metric("aapanel_http_requests_in_flight") == 0)


def test_an_open_websocket_is_counted_but_not_as_slow_request(server):
    slow = 'aapanel_http_request_duration_seconds_bucket{le="+Inf"}'
    with closing(websocket.create_connection(f"ws://127.0.0.1:{server.port}/echo", timeout=10)) as client:
        client.send("hello")
        assert client.recv() == "hello"
        client.send_binary(b"\0" * 100_000)
        assert len(client.recv()) == 100_000
        assert server.metric("aapanel_websockets_open") == 1
        before = server.metric(slow)
    eventually(lambda: server.metric("aapanel_websockets_open") == 0)
    assert server.metric('aapanel_http_requests_total{method="GET",status="101"}') >= 1
    assert server.metric(slow) == before


def test_a_refused_upgrade_is_counted_as_request(server):
    answer = requests.get(server.url, headers={"Connection": "Upgrade", "Upgrade": "websocket"}, timeout=10)
    assert (answer.status_code, answer.headers["X-Release"]) == (400, "r-1"), (
        "the response of werkzeug for a plain route"
    )
    eventually(lambda: server.metric("aapanel_websockets_open") == 0)


def close_code(client: websocket.WebSocket) -> int:
    """Read until the close frame, answer it as a browser does, and return its code."""
    opcode, data = websocket.ABNF.OPCODE_TEXT, b""
    while opcode != websocket.ABNF.OPCODE_CLOSE:
        opcode, data = client.recv_data(control_frame=True)
    client.close()
    return struct.unpack("!H", data[:2])[0]


def test_a_stop_closes_websockets_with_1012_and_finishes_requests(start):
    server = start().wait_until_up()

    def connect(path: str) -> websocket.WebSocket:
        return websocket.create_connection(f"ws://127.0.0.1:{server.port}{path}", timeout=15)

    clients = [connect("/echo"), connect("/deaf"), connect("/echo"), connect("/deaf")]
    unresponsive = connect("/echo")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{server.url}/slow?seconds=4", timeout=20)
        eventually(lambda: server.metric("aapanel_http_requests_in_flight") == 1)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert [close_code(client) for client in clients] == [1012] * 4
        answer = slow.result()
        assert (answer.status_code, answer.text) == (200, "finished\n")
    assert server.process.wait(20) == 0
    assert time.monotonic() - started < 12, "the stop waited for the graceful timeout of 30 s"
    assert "Worker graceful timeout" not in server.log.read_text()
    assert close_code(unresponsive) == 1012


def test_a_replacement_continues_the_metrics_of_its_worker(start):
    server = start(AAPANEL_WORKERS="1").wait_until_up()
    counted = 'aapanel_http_requests_total{method="GET",status="200"}'
    for _ in range(5):
        requests.get(server.url, timeout=10)
    hanging = socket.create_connection(("127.0.0.1", server.port))
    hanging.sendall(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: p\r\n\r\n")
    eventually(lambda: server.metric("aapanel_http_requests_in_flight") == 1)
    files = sorted(path.name for path in server.metrics_folder.iterdir())
    old = requests.get(server.url, timeout=10).json()["pid"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: (answer := server.get("/")) and answer.json()["pid"] != old)
    assert server.metric(counted) >= 6, "the counter of the new worker started at 0"
    assert server.metric("aapanel_http_requests_in_flight") == 0, "the killed worker's request is still in flight"
    assert sorted(path.name for path in server.metrics_folder.iterdir()) == files, (
        "the new worker has created other files"
    )
    hanging.close()


def test_a_renewal_is_postponed_for_open_websockets_but_not_forever(start):
    server = start(AAPANEL_WORKERS="1", AAPANEL_MAX_REQUESTS="10", LOG_LEVEL="INFO").wait_until_up()
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}/echo", timeout=10)
    for _ in range(40):
        server.get("/")
    client.send("still there")
    assert client.recv() == "still there"
    assert RENEWAL not in server.log.read_text()
    for _ in range(80):
        server.get("/")
    eventually(lambda: RENEWAL in server.log.read_text())
    assert close_code(client) == 1012


def test_a_renewal_follows_when_the_websockets_are_closed(start):
    server = start(AAPANEL_WORKERS="1", AAPANEL_MAX_REQUESTS="10", LOG_LEVEL="INFO").wait_until_up()
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}/echo", timeout=10)
    for _ in range(30):
        server.get("/")
    assert RENEWAL not in server.log.read_text()
    client.close()
    for _ in range(6):
        server.get("/")
    eventually(lambda: RENEWAL in server.log.read_text())


def metrics_folders(master: int) -> set[Path]:
    """Return the folders with open metrics files of the workers of a gunicorn."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == master:
                found |= {
                    file.readlink().parent for file in (stat.parent / "fd").iterdir() if file.readlink().suffix == ".db"
                }
    return found


def test_the_configuration_sets_only_the_intended_settings():
    script = "from aapanel_runtime import gunicorn_config; print('\\n'.join(vars(gunicorn_config)))"
    names = subprocess.run(
        [sys.executable, "-c", script], env=clean_environ(), capture_output=True, text=True, check=True
    )
    assert set(names.stdout.split()) & {setting.name for setting in KNOWN_SETTINGS} == {
        "access_log_format", "accesslog", "bind", "child_exit", "control_socket_disable", "errorlog",
        "forwarded_allow_ips", "graceful_timeout", "loglevel", "max_requests", "max_requests_jitter", "on_exit",
        "on_starting", "post_fork", "post_worker_init", "pre_fork", "pre_request", "preload_app",
        "proc_name", "timeout", "worker_class", "worker_connections", "worker_tmp_dir", "workers", "wsgi_app",
    }  # fmt: skip


def test_invalid_settings_exit_with_78_and_all_problems_without_secrets(start):
    server = start(ENVIRONMENT="production", SECRET_KEY="short-and-secret", PORT="http", DB_POOL_SIZE="0")
    assert server.process.wait(20) == 78
    log = server.log.read_text()
    assert "SECRET_KEY: has 16 characters" in log
    assert "PORT: 'http'" in log
    assert "DB_POOL_SIZE: '0'" in log
    assert "short-and-secret" not in log
    assert "Traceback" not in log


def test_gthread_closes_websockets_and_removes_the_temporary_metrics_folder(start):
    server = start(AAPANEL_WORKER_CLASS="gthread", AAPANEL_METRICS_DIR="", AAPANEL_WORKERS="1")
    eventually(lambda: server.get("/health/live"))
    (folder,) = metrics_folders(server.process.pid)
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}/echo", timeout=15)
    server.process.send_signal(signal.SIGTERM)
    assert close_code(client) == 1012
    assert server.process.wait(15) == 0
    assert not folder.exists()


def test_a_hanging_database_is_unready_after_the_timeout_and_blocks_no_request(start, silent_port):
    server = start(
        DATABASE_URL=f"postgresql://panel:hidden-pw@127.0.0.1:{silent_port}/panel",
        REDIS_URL=f"redis://:hidden-pw@127.0.0.1:{silent_port}/0",
        AAPANEL_HEALTH_TIMEOUT="1.5",
        AAPANEL_WORKERS="1",
    ).wait_until_up()
    time.sleep(1.1)  # the result for wait_until_up is cached for a second
    others = []
    done = threading.Event()

    def request() -> None:
        while not done.is_set():
            started = time.monotonic()
            requests.get(server.url, timeout=10)
            others.append(time.monotonic() - started)

    client = threading.Thread(target=request)
    client.start()
    started = time.monotonic()
    answer = requests.get(f"{server.url}/health/ready", timeout=10)
    taken = time.monotonic() - started
    done.set()
    client.join()
    assert answer.status_code == 503
    assert 1.0 < taken < 2.5, "sequential checks would take 3 s"
    assert {name: check["error"] for name, check in answer.json()["checks"].items()} == {
        "database": "no answer within 1.5 s",
        "redis": "no answer within 1.5 s",
    }
    assert max(others) < 1.0, "the only worker must serve other requests while it waits"
    assert "hidden-pw" not in answer.text + server.log.read_text()
