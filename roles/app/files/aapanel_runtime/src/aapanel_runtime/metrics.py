# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics that are right with one process and with many.

prometheus_client keeps each process's numbers in files named after its pid. gunicorn replaces workers all the time, so
those files would pile up and slow down every scrape. Here a file is named after the worker's *place* ("w1", "w2"…),
which a new worker inherits: counters go on where they were, and there are never more files than workers.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from .database import PoolWatch
from .health import Check

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Methods are made up by clients: unknown ones share a label, or a scanner could fill the disk.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
_WORKER_PID = "aapanel_worker_pid"
_READ_ATTEMPTS = 3
# What reading a file says that its worker is just making or removing.
_TORN = (OSError, ValueError, RuntimeError, struct.error)
# These two modules of prometheus_client carry no types.
_multiprocess: Any = multiprocess
_values: Any = values


def share(place: str) -> None:
    """Make this process write its metrics for ``place`` in the folder that ``PROMETHEUS_MULTIPROC_DIR`` names.

    Call it before the first metric is made, so before the application is imported.
    """
    owner = os.getpid()

    def identify() -> str:
        # A process that the application forks must not write into its parent's file.
        pid = os.getpid()
        return place if pid == owner else f"{place}-{pid}"

    # The name that prometheus_client's metrics look up; its manual names no other way to choose an identifier.
    _values.ValueClass = _values.MultiProcessValue(identify)


def forget(place: str, directory: str) -> None:
    """Remove the gauges of a worker that is gone: what it had in flight is no longer."""
    _multiprocess.mark_process_dead(place, directory)


def clean(directory: str) -> None:
    """Make the folder and remove what an earlier run left in it.

    Raises:
        OSError: it cannot be made or written.
    """
    folder = Path(directory)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink(missing_ok=True)


class Metrics:
    """What the runtime counts. One instance a process."""

    def __init__(self, *, shared: bool, labels: Mapping[str, str], pool_limit: int | None = None) -> None:
        """Count for this process, or for a worker beside others (``shared``, see :func:`share`).

        ``labels`` describe the release; ``pool_limit`` is the size that a worker's database pool may reach.
        """
        # A registry of our own: the application may export a metric of the same name.
        self._registry = CollectorRegistry()
        self._shared = shared
        self._labels = dict(labels)
        self._pool_limit = pool_limit
        self._requests = Counter(
            "aapanel_http_requests",
            "Requests answered by the application.",
            ["method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "aapanel_http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer; WebSockets are not in it.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = self._gauge("aapanel_http_requests_in_flight", "Requests that are being answered.")
        self.websockets = self._gauge("aapanel_websockets_open", "Open WebSockets.")
        self.pool = PoolWatch(
            self._gauge("aapanel_database_pool_open", "Open connections of SQLAlchemy's pools."),
            self._gauge("aapanel_database_pool_checked_out", "Connections of SQLAlchemy's pools that are in use."),
        )
        if shared:
            # Lets any worker find the processes of all.
            pid = Gauge(_WORKER_PID, "Process id.", registry=self._registry, multiprocess_mode="liveall")
            pid.set(os.getpid())

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry, multiprocess_mode="livesum")

    def answered(self, method: str, status: int, seconds: float | None) -> None:
        """Count an answer; ``seconds`` is none for a WebSocket, which lasts as long as its user wants."""
        self._requests.labels(method if method in _METHODS else "OTHER", str(status)).inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def render(self, checks: Mapping[str, Check]) -> bytes:
        """Return the metrics of all workers, and what ``checks`` say, in Prometheus' text format 0.0.4."""
        registry = CollectorRegistry()
        registry.register(_Families(self._read(), self._state(checks)))
        return generate_latest(registry)

    def _read(self) -> list[Metric]:
        if not self._shared:
            return [*self._registry.collect(), *REGISTRY.collect()]
        for _ in range(_READ_ATTEMPTS - 1):
            with suppress(*_TORN):
                return self._read_shared()
            time.sleep(0.01)
        return self._read_shared()

    @staticmethod
    def _read_shared() -> list[Metric]:
        families: list[Metric] = list(_multiprocess.MultiProcessCollector(None).collect())
        pids = {
            sample.labels["pid"]: int(sample.value)
            for family in families
            if family.name == _WORKER_PID
            for sample in family.samples
        }
        return [*(family for family in families if family.name != _WORKER_PID), *_processes(pids)]

    def _state(self, checks: Mapping[str, Check]) -> Iterable[Metric]:
        yield InfoMetricFamily("aapanel_release", "What is running here.", value=self._labels)
        up = GaugeMetricFamily(
            "aapanel_dependency_up",
            "Whether a dependency answered this worker within the time limit.",
            labels=["dependency"],
        )
        seconds = GaugeMetricFamily(
            "aapanel_dependency_check_seconds", "How long a dependency took to answer.", labels=["dependency"]
        )
        for name, check in checks.items():
            if check.status != "not_configured":
                up.add_metric([name], float(check.status == "ok"))
                seconds.add_metric([name], check.seconds)
        yield up
        yield seconds
        if self._pool_limit is not None:
            yield GaugeMetricFamily(
                "aapanel_database_pool_limit",
                "Connections that one worker may open, from DB_POOL_SIZE and DB_MAX_OVERFLOW.",
                value=self._pool_limit,
            )


class _Families:
    """Hands finished families to a registry, for :func:`generate_latest` to write."""

    def __init__(self, *families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        # Told nothing, a registry collects once on registration to learn the names.
        return []

    def collect(self) -> Iterable[Metric]:
        for families in self._families:
            yield from families


def _processes(pids: Mapping[str, int]) -> list[Metric]:
    """Return the usual ``process_*`` metrics of each worker, with a label that says which."""
    families: dict[str, Metric] = {}
    for place, pid in sorted(pids.items()):
        for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": place}, sample.value)
    return list(families.values())
