# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the example panel as a deploy does."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PANEL = ROOT / "examples" / "panel"
TOKEN = "token-of-the-tests"


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without the settings of the developer's shell."""
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "LANG", "TMPDIR"}}
    return {**kept, "AAPANEL_HOME": str(home), "PANEL_API_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1", **more}


def alembic(home: Path, *commands: str, **more: str) -> str:
    """Run Alembic commands in order in one process, and return their output."""
    program = "import sys, alembic.config\nfor line in sys.argv[1:]: alembic.config.main(line.split())"
    done = subprocess.run(
        [sys.executable, "-c", program, *commands],
        cwd=PANEL,
        env=clean_environment(home, **more),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Server:
    """A running gunicorn."""

    process: subprocess.Popen[str]
    url: str
    socket: Path
    home: Path
    log: Path


def start(home: Path, run: Path, release: Path = PANEL) -> Server:
    """Start gunicorn on a free port and on a Unix socket, and wait until it answers."""
    log, socket = run / "gunicorn.log", run / "panel.sock"
    command = [sys.executable, "-m", "gunicorn", "BTPanel:app", "-k", "gevent", "-w", "1", "--no-control-socket"]
    with log.open("w") as target:
        process = subprocess.Popen(
            [*command, "-b", "127.0.0.1:0", "-b", f"unix:{socket}", "--graceful-timeout", "8"],
            cwd=release,
            env=clean_environment(home),
            stdout=target,
            stderr=subprocess.STDOUT,
            text=True,
        )
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        port = re.search(r"Listening at: .*http://127\.0\.0\.1:(\d+)", log.read_text())
        if port and _answers(int(port[1])):
            return Server(process, f"http://127.0.0.1:{port[1]}", socket, home, log)
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", "/version")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def stop(server: Server) -> int:
    """Stop gunicorn gracefully, and return its exit status."""
    server.process.terminate()
    try:
        return server.process.wait(15)
    finally:
        server.process.kill()
