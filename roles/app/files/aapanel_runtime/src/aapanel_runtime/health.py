# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readiness: all components asked at once, within one time limit, by one request at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .probes import Probe, ProbeError, database_probe, no_answer, redis_probe
from .problems import redact
from .settings import BaseSettings

_log = logging.getLogger(__name__)

# A load balancer, a deploy gate and a monitor may all probe at once: they share an answer that is this old at most.
CACHE_SECONDS = 1.0

Status = Literal["ok", "failed", "not_configured"]


@dataclass(frozen=True)
class Check:
    """What one component said. ``seconds`` is how long that took.

    ``error`` is safe for anybody to read; ``detail`` is for the log, and redacted.
    """

    status: Status
    kind: str = ""
    seconds: float = 0.0
    error: str = ""
    detail: str = field(default="", repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON answer holds."""
        if self.status == "not_configured":
            return {"status": self.status}
        answer: dict[str, Any] = {"status": self.status, "kind": self.kind, "ms": round(self.seconds * 1000, 1)}
        if self.error:
            answer["error"] = self.error
        return answer


@dataclass(frozen=True)
class Component:
    """Something the application depends on. Without a probe it is not configured."""

    name: str
    kind: str = ""
    probe: Probe | None = None


@dataclass
class _Run:
    """One probe on its way. It may outlive the request that started it."""

    thread: threading.Thread
    done: threading.Event = field(default_factory=threading.Event)
    check: Check | None = None


class Health:
    """Asks components. Thread-safe, and safe in gevent's greenlets."""

    def __init__(
        self,
        components: list[Component],
        timeout: float,
        *,
        secrets: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``components``, each within ``timeout`` seconds; ``secrets`` are kept out of the log."""
        self._components = components
        self._timeout = timeout
        self._secrets = secrets
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._checks: dict[str, Check] = {}
        self._checked_at: float | None = None

    def checks(self) -> Mapping[str, Check]:
        """Return what each component said, at most :data:`CACHE_SECONDS` ago."""
        # Whoever waits here waits for the one who asks, so for one time limit, and then finds a fresh answer.
        with self._lock:
            if self._checked_at is None or self._clock() - self._checked_at >= CACHE_SECONDS:
                self._checks = self._ask()
                self._checked_at = self._clock()
            return self._checks

    def _ask(self) -> dict[str, Check]:
        started = self._clock()
        for component in self._components:
            run = self._runs.get(component.name)
            # A probe that hangs is not asked again beside itself: connections would pile up.
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
            self._tell(component.name, check)
            checks[component.name] = check
        return checks

    def _start(self, component: Component, probe: Probe) -> _Run:
        def ask() -> None:
            started = self._clock()
            error = detail = ""
            try:
                probe(self._timeout)
            except ProbeError as problem:
                error, detail = str(problem), problem.detail
            except Exception as problem:  # noqa: BLE001 - whatever a driver raises means: not ready
                error, detail = f"the check failed ({type(problem).__name__})", repr(problem)
            seconds = self._clock() - started
            detail = redact(detail, self._secrets).strip()
            run.check = Check("failed" if error else "ok", component.kind, seconds, error, detail)
            run.done.set()

        run = _Run(threading.Thread(target=ask, name=f"health-{component.name}", daemon=True))
        run.thread.start()
        return run

    def _tell(self, name: str, check: Check) -> None:
        """Log a change, once."""
        before = self._checks.get(name)
        if check.status == "failed" and (before is None or before.error != check.error):
            _log.warning("%s does not answer as it should: %s", name, check.detail or check.error)
        elif check.status == "ok" and before is not None and before.status == "failed":
            _log.info("%s answers again", name)


def from_settings(settings: BaseSettings) -> Health:
    """Return the health of what the settings name: ``database`` and ``redis``."""
    database, redis = settings.database, settings.redis
    return Health(
        [
            Component("database", database.kind, database_probe(database)) if database else Component("database"),
            Component("redis", "redis", redis_probe(redis)) if redis else Component("redis"),
        ],
        settings.aapanel_health_timeout,
        secrets=frozenset(part.password for part in (database, redis) if part and part.password),
    )
