# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of one process or of all workers together.

prometheus_client stores the values of each process in files named after its pid. gunicorn replaces workers regularly,
so these files would pile up and slow down each scrape. Here the files are named after a worker ID ("w1", "w2"…), which
the replacement of a worker takes over: counters continue, and there are never more files than workers.
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

from ..database.pool import PoolWatch
from ..health import Check

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Clients may send any method. Unknown ones share a label, so that a scanner cannot fill the disk.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
_WORKER_PID = "aapanel_worker_pid"
_READ_ATTEMPTS = 3
# Errors of reading a file while its worker creates or removes it.
_CONCURRENT_CHANGE = (OSError, ValueError, RuntimeError, struct.error)
# These two modules of prometheus_client have no type hints.
_multiprocess: Any = multiprocess
_values: Any = values


def use_worker_files(worker_id: str) -> None:
    """Store the metrics of this process under *worker_id* in the folder ``PROMETHEUS_MULTIPROC_DIR``.

    Call this before the first metric is created, so before the application is imported.
    """
    owner = os.getpid()

    def identify() -> str:
        # A process that the application forks must not write to its parent's file.
        pid = os.getpid()
        return worker_id if pid == owner else f"{worker_id}-{pid}"

    # The metrics of prometheus_client look up this name; there is no documented way to choose the identifier.
    _values.ValueClass = _values.MultiProcessValue(identify)


def remove_gauges(worker_id: str, directory: str) -> None:
    """Remove the gauges of a worker that has exited, because its requests are no longer in flight."""
    _multiprocess.mark_process_dead(worker_id, directory)


def prepare_directory(directory: str) -> None:
    """Create the folder, and remove the files of an earlier run.

    :raises OSError: the folder cannot be created or written.
    """
    folder = Path(directory)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink(missing_ok=True)


class Metrics:
    """The metrics of the runtime; one instance per process."""

    def __init__(self, *, shared: bool, labels: Mapping[str, str], pool_limit: int | None = None) -> None:
        """Create the metrics.

        :param shared: the process is one of several workers (see :func:`use_worker_files`).
        :param labels: labels of ``aapanel_release_info``.
        :param pool_limit: maximum size of a worker's database pool; None without a pool.
        """
        # Not the global registry: the application may export a metric of the same name.
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
            "Time from the arrival of a request to the end of its response; without WebSockets.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = self._gauge("aapanel_http_requests_in_flight", "Requests in progress.")
        self.websockets = self._gauge("aapanel_websockets_open", "Open WebSockets.")
        self.pool = PoolWatch(
            self._gauge("aapanel_database_pool_open", "Open connections in SQLAlchemy's pools."),
            self._gauge("aapanel_database_pool_checked_out", "Connections in use in SQLAlchemy's pools."),
        )
        if shared:
            # Lets each worker find the processes of all workers.
            pid = Gauge(_WORKER_PID, "Process ID.", registry=self._registry, multiprocess_mode="liveall")
            pid.set(os.getpid())

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry, multiprocess_mode="livesum")

    def count_request(self, method: str, status: int, seconds: float | None) -> None:
        """Count a finished request.

        :param seconds: its duration; None for a WebSocket, which lasts as long as its user wants.
        """
        self._requests.labels(method if method in _METHODS else "OTHER", str(status)).inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def render(self, checks: Mapping[str, Check]) -> bytes:
        """Return the metrics of all workers and the results of *checks* in Prometheus' text format 0.0.4."""
        registry = CollectorRegistry()
        registry.register(_Families(self._read(), self._state(checks)))
        return generate_latest(registry)

    def _read(self) -> list[Metric]:
        if not self._shared:
            return [*self._registry.collect(), *REGISTRY.collect()]
        for _ in range(_READ_ATTEMPTS - 1):
            with suppress(*_CONCURRENT_CHANGE):
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
        yield InfoMetricFamily("aapanel_release", "Labels of the running release.", value=self._labels)
        up = GaugeMetricFamily(
            "aapanel_dependency_up",
            "Whether the dependency answered this worker within the time limit.",
            labels=["dependency"],
        )
        seconds = GaugeMetricFamily(
            "aapanel_dependency_check_seconds", "Time that the dependency took to answer.", labels=["dependency"]
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
                "Maximum connections of one worker: DB_POOL_SIZE plus DB_MAX_OVERFLOW.",
                value=self._pool_limit,
            )


class _Families:
    """A collector of finished metric families, for :func:`generate_latest`."""

    def __init__(self, *families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for families in self._families:
            yield from families


def _processes(pids: Mapping[str, int]) -> list[Metric]:
    """Return the standard ``process_*`` metrics of all workers, with the label ``worker``."""
    families: dict[str, Metric] = {}
    for worker_id, pid in sorted(pids.items()):
        for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": worker_id}, sample.value)
    return list(families.values())
