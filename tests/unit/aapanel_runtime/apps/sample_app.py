# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application with the features that a WSGI layer could break."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask, Response, request, send_file
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
FILE = Path(__file__).with_name("sample_app.py")


@app.get("/")
def index():
    answer = {"pid": os.getpid(), "address": request.remote_addr, "scheme": request.scheme}
    return answer, {"X-Release": "forged", "X-Slot": "forged"}


@app.get("/slow")
def slow():
    time.sleep(float(request.args.get("seconds", "2")))
    return "finished\n"


@app.get("/stream")
def stream():
    count = int(request.args.get("chunks", "3"))

    def chunks():
        for number in range(count):
            yield f"{number}\n" * 1000
            time.sleep(0.05)

    return Response(chunks(), mimetype="text/plain")


@app.get("/file")
def file():
    return send_file(FILE)


@app.get("/fail")
def fail():
    raise RuntimeError("on purpose")


@sock.route("/echo")
def echo(connection):
    while True:
        connection.send(connection.receive())


@sock.route("/deaf")
def deaf(connection):
    """Send without reading, like a terminal that only prints."""
    while True:
        connection.send("tick")
        time.sleep(0.1)
