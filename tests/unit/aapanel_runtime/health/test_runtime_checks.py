# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks: caching, concurrency and logging."""

from __future__ import annotations

import logging
import threading
import time

from aapanel_runtime.health import Component, Health


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_concurrent_requests_share_one_probe():
    calls = []
    clock = Clock()

    def probe(_timeout: float) -> None:
        calls.append(1)
        time.sleep(0.1)

    health = Health([Component("database", "postgresql", probe), Component("redis")], 2, clock=clock)
    threads = [threading.Thread(target=health.checks) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    clock.now += 1.0
    assert {name: check.status for name, check in health.checks().items()} == {
        "database": "ok",
        "redis": "not_configured",
    }
    assert len(calls) == 2


def test_a_probe_that_hangs_is_not_started_again():
    calls = []
    release = threading.Event()

    def probe(_timeout: float) -> None:
        calls.append(1)
        assert release.wait(20)

    health = Health([Component("database", "postgresql", probe)], 0.1)
    for _ in range(3):
        started = time.monotonic()
        assert health.checks()["database"].error == "no answer within 0.1 s"
        assert time.monotonic() - started < 1
        health._checked_at = None
    assert len(calls) == 1
    release.set()


def test_an_unexpected_error_is_a_failure_without_secrets(caplog):
    def probe(_timeout: float) -> None:
        raise RuntimeError("password hunter2 is wrong")

    logging.getLogger("aapanel_runtime").propagate = True
    health = Health([Component("database", "mysql", probe)], 1, secrets=frozenset({"hunter2"}))
    assert health.checks()["database"].as_dict()["error"] == "the check failed (RuntimeError)"
    assert "password *** is wrong" in caplog.text
    health._checked_at = None
    health.checks()
    assert len(caplog.records) == 1, "a state is logged once, not for each probe"
