# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for the example panel in a real gunicorn, with the probe of the container tests."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.request

import pytest
from panel_lab import ROOT, TOKEN, start, stop

PROBE = ROOT / "molecule" / "shared" / "files" / "probe.py"


def probe(server, *arguments):
    """Run the probe as a container does; return its exit status and its results by name."""
    done = subprocess.run(
        [sys.executable, PROBE, "--url", server.url, "--json", "--timeout", "5", *arguments],
        env={"PROBE_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, {result["check"]: result for result in json.loads(done.stdout)}


def test_checks_of_the_app_pass_without_nginx(served):
    checks = ["pages", "websocket", "upload", "errors", "stream", "item", "background"]
    status, results = probe(served, *checks)
    assert status == 0, results
    assert list(results) == checks
    paths = [
        word for name in ("item", "upload") for word in results[name]["detail"].split() if word.startswith("path=")
    ]
    assert len(paths) == 2
    assert probe(served, "--expect", paths[0], "--expect", paths[1], "kept")[0] == 0


def test_checks_of_nginx_fail_without_nginx(served):
    """A check that passed here would prove nothing about nginx."""
    checks = ["health", "static", "gzip", "unknown-host", "headers", "unavailable", "http2"]
    status, results = probe(served, *checks)
    assert status == 1
    assert {name: result["ok"] for name, result in results.items()} == dict.fromkeys(checks, False)
    assert "expected 200, got 404" in results["health"]["detail"]
    assert "max-age=31536000, got" in results["static"]["detail"]
    assert "got '203.0.113.9'" in results["headers"]["detail"]


@pytest.mark.parametrize(("real_ip", "status"), [("192.0.2.7", 200), (None, 404)])
def test_behind_a_unix_socket_the_login_page_needs_a_real_ip(served, real_ip, status):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(served.socket))
        client = http.client.HTTPConnection("panel.test")
        client.sock = connection
        headers = {"User-Agent": "Mozilla/5.0"} | ({"X-Real-IP": real_ip} if real_ip else {})
        client.request("GET", "/login", headers=headers)
        assert client.getresponse().status == status


def test_a_stopped_worker_finishes_accepted_jobs(migrated, tmp_path):
    shutil.copytree(migrated, tmp_path / "home")
    server = start(tmp_path / "home", tmp_path)
    try:
        request = urllib.request.Request(
            f"{server.url}/api/background",
            json.dumps({"title": "accepted", "seconds": 1}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 202
    finally:
        status = stop(server)
    assert status == 0
    with sqlite3.connect(tmp_path / "home" / "data" / "default.db") as store:
        assert store.execute("SELECT title FROM items").fetchall() == [("accepted",)]
        assert store.execute("SELECT state FROM jobs").fetchall() == [("done",)]
