# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the dependencies of the application: all at once, within one time limit, once for concurrent requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..problems import redact
from ..settings import BaseSettings
from .probes import Probe, ProbeError, database_probe, no_answer, redis_probe

_log = logging.getLogger(__name__)

# Maximum age of a result. A load balancer, a deploy and a monitoring system that ask at the same time share it.
CACHE_SECONDS = 1.0

Status = Literal["ok", "failed", "not_configured"]


@dataclass(frozen=True)
class Check:
    """The result of a component's health check.

    :param kind: kind of the component, such as ``postgresql``.
    :param seconds: duration of the check.
    :param error: short reason of a failure, without host, user or password.
    :param detail: reason of a failure for the log, without secrets.
    """

    status: Status
    kind: str = ""
    seconds: float = 0.0
    error: str = ""
    detail: str = field(default="", repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for the JSON response."""
        if self.status == "not_configured":
            return {"status": self.status}
        result: dict[str, Any] = {"status": self.status, "kind": self.kind, "ms": round(self.seconds * 1000, 1)}
        if self.error:
            result["error"] = self.error
        return result


@dataclass(frozen=True)
class Component:
    """A dependency of the application. It is not configured if it has no probe."""

    name: str
    kind: str = ""
    probe: Probe | None = None


@dataclass
class _Run:
    """A running probe. It may outlive the request that started it."""

    thread: threading.Thread
    done: threading.Event = field(default_factory=threading.Event)
    check: Check | None = None


class Health:
    """Runs the health checks of components. Safe in threads and in gevent's greenlets."""

    def __init__(
        self,
        components: list[Component],
        timeout: float,
        *,
        secrets: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the health checks.

        :param timeout: time limit for all components together, in seconds.
        :param secrets: texts to redact in the log.
        """
        self._components = components
        self._timeout = timeout
        self._secrets = secrets
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._checks: dict[str, Check] = {}
        self._checked_at: float | None = None

    def checks(self) -> Mapping[str, Check]:
        """Return the result of each component, at most :data:`CACHE_SECONDS` old."""
        # A request that waits for the lock waits one time limit at most, and then finds a fresh result.
        with self._lock:
            if self._checked_at is None or self._clock() - self._checked_at >= CACHE_SECONDS:
                self._checks = self._run_probes()
                self._checked_at = self._clock()
            return self._checks

    def _run_probes(self) -> dict[str, Check]:
        started = self._clock()
        for component in self._components:
            run = self._runs.get(component.name)
            # A probe that hangs is not started a second time: connections would pile up.
            if component.probe and (run is None or run.done.is_set()):
                self._runs[component.name] = self._start(component, component.probe)
        checks = {}
        for component in self._components:
            if component.probe is None:
                checks[component.name] = Check("not_configured")
                continue
            run = self._runs[component.name]
            run.done.wait(max(0.0, started + self._timeout - self._clock()))
            check = run.check or Check("failed", component.kind, self._clock() - started, no_answer(self._timeout))
            self._log_change(component.name, check)
            checks[component.name] = check
        return checks

    def _start(self, component: Component, probe: Probe) -> _Run:
        def run_probe() -> None:
            started = self._clock()
            error = detail = ""
            try:
                probe(self._timeout)
            except ProbeError as problem:
                error, detail = str(problem), problem.detail
            except Exception as problem:  # noqa: BLE001 - any error of a driver means not ready
                error, detail = f"the check failed ({type(problem).__name__})", repr(problem)
            seconds = self._clock() - started
            detail = redact(detail, self._secrets).strip()
            run.check = Check("failed" if error else "ok", component.kind, seconds, error, detail)
            run.done.set()

        run = _Run(threading.Thread(target=run_probe, name=f"health-{component.name}", daemon=True))
        run.thread.start()
        return run

    def _log_change(self, name: str, check: Check) -> None:
        """Log a result that differs from the previous one."""
        before = self._checks.get(name)
        if check.status == "failed" and (before is None or before.error != check.error):
            _log.warning("The health check of %s failed: %s", name, check.detail or check.error)
        elif check.status == "ok" and before is not None and before.status == "failed":
            _log.info("The health check of %s succeeds again", name)


def from_settings(settings: BaseSettings) -> Health:
    """Return the health checks of the configured database and Redis."""
    database, redis = settings.database, settings.redis
    return Health(
        [
            Component("database", database.kind, database_probe(database)) if database else Component("database"),
            Component("redis", "redis", redis_probe(redis)) if redis else Component("redis"),
        ],
        settings.aapanel_health_timeout,
        secrets=frozenset(part.password for part in (database, redis) if part and part.password),
    )
