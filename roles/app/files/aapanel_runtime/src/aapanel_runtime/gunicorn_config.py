# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of gunicorn: ``gunicorn --config python:aapanel_runtime.gunicorn_config``.

gunicorn reads each name of this module that is one of its settings, so no other name may equal a setting; a test checks
this. Settings: https://gunicorn.org/reference/settings/
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import NoReturn, Protocol

from .problems import SettingsError
from .serving import logs, metrics, websockets
from .serving.capacity import cpu_count, memory_limit, worker_count
from .settings import BaseSettings, get_settings

# EX_CONFIG of sysexits.h, for RestartPreventExitStatus= of a unit: a restart would fail again.
_EXIT_CONFIGURATION = 78
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn creates its heartbeat files there with mkstemp


class _Worker(websockets.Worker, Protocol):
    aapanel_id: str


class _Arbiter(Protocol):
    WORKERS: dict[int, _Worker]


def _read_settings() -> BaseSettings:
    try:
        return get_settings()
    except SettingsError as error:
        _refuse(f"The settings are not valid:\n{error}")


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(_EXIT_CONFIGURATION)


def _memory_folder() -> str | None:
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


_settings = _read_settings()
logs.set_up(_settings)
_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host

wsgi_app = "aapanel_runtime.wsgi:application"
bind = [f"{_host}:{_settings.port}"]
if _settings.aapanel_socket:
    bind.append(f"unix:{_settings.aapanel_socket}")
workers = _settings.aapanel_workers or worker_count(cpu_count(), memory_limit(), _settings.aapanel_worker_memory_mb)
worker_class = _settings.aapanel_worker_class
worker_connections = _settings.aapanel_worker_connections
if worker_class == "gthread":
    # Only for gthread: gunicorn replaces a sync worker with more than one thread by a gthread worker.
    threads = _settings.aapanel_threads
timeout = _settings.aapanel_timeout
graceful_timeout = _settings.aapanel_graceful_timeout
max_requests = _settings.aapanel_max_requests
# Without jitter all workers would be replaced at the same moment.
max_requests_jitter = max_requests // 10
# The heartbeat of a worker is a file. On a busy disk an update may block for so long that the worker is killed.
worker_tmp_dir = _memory_folder()
# Each worker imports the application after gevent has patched the standard library.
preload_app = False
# Enabled since gunicorn 25.1, with one path per user: the two slots would remove each other's socket.
control_socket_disable = True
forwarded_allow_ips = _settings.aapanel_forwarded_allow_ips
proc_name = "-".join(filter(None, ("aapanel", _settings.aapanel_slot)))
loglevel = _settings.log_level.lower()
errorlog = "-"
accesslog = "-" if _settings.aapanel_access_log else None
# Without time, which the journal adds, and without query string, which may contain a token.
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(B)s %(M)sms'


def on_starting(server: object) -> None:  # noqa: ARG001 - the hook's signature
    """Remove the metrics of an earlier run, which would be added to the new ones."""
    folder = _settings.aapanel_metrics_dir or tempfile.mkdtemp(prefix="aapanel-metrics-", dir=worker_tmp_dir)
    try:
        metrics.prepare_directory(folder)
    except OSError as error:
        _refuse(
            f"AAPANEL_METRICS_DIR: {folder!r} cannot be used: {error.strerror}. Let the service's user write there."
        )
    os.environ[metrics.DIRECTORY_VARIABLE] = folder


def pre_fork(server: _Arbiter, worker: _Worker) -> None:
    """Give the new worker the first free ID, so that it continues the metrics of the worker that it replaces."""
    used = {other.aapanel_id for other in server.WORKERS.values()}
    worker.aapanel_id = next(free for number in range(1, len(used) + 2) if (free := f"w{number}") not in used)


def post_fork(server: object, worker: _Worker) -> None:  # noqa: ARG001 - the hook's signature
    """Store metrics under the worker's ID, before the application is imported and creates its own."""
    metrics.use_worker_files(worker.aapanel_id)


def post_worker_init(worker: _Worker) -> None:
    """Close WebSockets when this worker stops."""
    websockets.watch(worker, graceful_timeout)


def pre_request(worker: _Worker, request: object) -> None:  # noqa: ARG001 - the hook's signature
    """Postpone the replacement of a worker with open WebSockets."""
    websockets.postpone_renewal(worker, max_requests)


def child_exit(server: object, worker: _Worker) -> None:  # noqa: ARG001 - the hook's signature
    """Remove the gauges of a worker that has exited."""
    metrics.remove_gauges(worker.aapanel_id, os.environ[metrics.DIRECTORY_VARIABLE])


def on_exit(server: object) -> None:  # noqa: ARG001 - the hook's signature
    """Remove the metrics folder if it is temporary."""
    if _settings.aapanel_metrics_dir is None:
        shutil.rmtree(os.environ[metrics.DIRECTORY_VARIABLE], ignore_errors=True)
