# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Background jobs, which continue after the response.

A job waits in a sorted set of Redis until it is due, so that any worker of either slot can run the jobs of a dead one.
Without Redis it waits in this process only.
"""

from __future__ import annotations

import atexit
import threading
import time

import redis
import sqlalchemy as sa
from flask import Flask, current_app
from panel_store import database

from . import store

LATEST = 60
QUEUE = "panel:jobs"
_running: set[threading.Thread] = set()


def submit(title: str, seconds: float) -> int:
    """Queue a job that writes an item called `title` in `seconds`, and return the job's ID."""
    row = {"title": title, "state": "queued", "created_at": database.now()}
    with store.engine().begin() as connection:
        key = database.insert(connection, database.jobs, row)
    queued = _enqueue(key, time.time() + seconds)
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # the proxy does not work in a thread
    thread = threading.Thread(target=_work, args=(app, key, seconds, queued), name=f"job-{key}", daemon=True)
    _running.add(thread)
    thread.start()
    return key


@atexit.register
def _finish() -> None:
    """Wait for accepted jobs when the worker stops, within gunicorn's graceful timeout.

    At exit Python waits for non-daemon threads, but not for the greenlets that gevent replaces them with.
    """
    for thread in list(_running):
        thread.join(LATEST)


def _enqueue(key: int, due: float) -> bool:
    client = store.client()
    if client is None:
        return False
    try:
        client.zadd(QUEUE, {str(key): due})
    except redis.RedisError as error:
        current_app.logger.warning("job %d waits in this process: Redis: %s", key, type(error).__name__)
        return False
    return True


def _work(app: Flask, key: int, seconds: float, queued: bool) -> None:
    time.sleep(seconds)
    with app.app_context():
        try:
            for due in _claim() if queued else [key]:
                _run(due)
        except Exception:  # An exception in a thread that is not logged here is lost.
            app.logger.exception("job %d failed", key)
        finally:
            _running.discard(threading.current_thread())


def _claim() -> list[int]:
    """Claim all jobs that are due. ZREM succeeds for one caller only, so no job runs twice."""
    client = store.client()
    if client is None:
        return []
    due = [str(key) for key in client.zrangebyscore(QUEUE, 0, time.time())]
    return [int(key) for key in due if client.zrem(QUEUE, key)]


def _run(key: int) -> None:
    jobs = database.jobs
    with store.engine().begin() as connection:
        job = connection.execute(sa.select(jobs).where(jobs.c.id == key, jobs.c.state == "queued")).first()
        if job is None:
            return
        item = {"title": job.title, "created_at": database.now()}
        written = database.insert(connection, database.items, item)
        connection.execute(sa.update(jobs).where(jobs.c.id == key), {"state": "done", "item_id": written})
