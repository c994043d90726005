# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The development server, and the logger of the runtime."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest
import requests
from aapanel_runtime import get_settings
from aapanel_runtime.serving import logs
from aapanel_runtime.serving.devserver import DevelopmentServerError, banner, serve
from runtime_server import clean_environ, eventually

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{}"]
"""


def answer(port: int) -> str:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=5).text
    except requests.RequestException:
        return ""


def test_the_banner_has_no_password():
    text = banner(
        get_settings("development", database_url="mysql://u:hunter2@h/d", redis_url="redis://:hunter2@h"), reload=False
    )
    assert "http://127.0.0.1:5000/" in text
    assert "mysql+pymysql://u:***@h/d" in text
    assert "hunter2" not in text


def test_production_is_refused():
    with pytest.raises(DevelopmentServerError, match="gunicorn --config"):
        serve(get_settings("production", secret_key="q8RkP2vXz7LmN4tYw9BcD3fGh6JsA1eU"))


def test_an_error_in_the_application_does_not_end_the_server(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as finder:
        port = finder.getsockname()[1]
    source = tmp_path / "devsample.py"
    source.write_text(APPLICATION.format("first"))
    file = tmp_path / "x.env"
    file.write_text(f"PORT={port}\nAAPANEL_APP=devsample:app\nAAPANEL_HOME={tmp_path}\n")
    command = [sys.executable, "-m", "aapanel_runtime", "serve", "--reload", "--env-file", str(file)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=clean_environ(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        eventually(lambda: answer(port) == "first")
        source.write_text("not Python\n")
        eventually(lambda: "cannot be loaded" in answer(port))
        source.write_text(APPLICATION.format("second time"))
        eventually(lambda: answer(port) == "second time")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    assert log.read_text().count("Development server") == 1
    assert f"http://127.0.0.1:{port}/health/ready" in log.read_text()


def test_the_loggers_of_the_application_are_not_changed(capsys):
    root, other = list(logging.getLogger().handlers), logging.getLogger("other")
    ours = logging.getLogger("aapanel_runtime")
    try:
        logs.set_up(get_settings("development", log_level="warning"))
        logs.set_up(get_settings("development", log_level="warning"))
        logging.getLogger("aapanel_runtime.x").warning("once")
        logging.getLogger("aapanel_runtime.x").info("never")
        assert capsys.readouterr().err == "WARNING aapanel_runtime.x: once\n"
        logs.set_up(get_settings("development", log_to_console=False))
        logging.getLogger("aapanel_runtime.x").error("silent")
        assert capsys.readouterr().err == ""
        assert (logging.getLogger().handlers, other.handlers, other.level) == (root, [], logging.NOTSET)
    finally:
        ours.handlers.clear()
        ours.propagate = True
