# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application of ``AAPANEL_APP`` inside the runtime: ``gunicorn … aapanel_runtime.wsgi:application``."""

from __future__ import annotations

import os
import platform

from . import health
from .serving import logs
from .serving.loader import load
from .serving.metrics import DIRECTORY_VARIABLE, Metrics
from .serving.middleware import Runtime
from .settings import BaseSettings, get_settings


def create_application(settings: BaseSettings) -> Runtime:
    """Load the application and wrap it.

    :raises SettingsError: ``AAPANEL_APP`` or ``AAPANEL_HOME`` does not exist.
    """
    logs.set_up(settings)
    database = settings.database
    # Before the application is imported, because it may create metrics of its own.
    metrics = Metrics(
        shared=DIRECTORY_VARIABLE in os.environ,
        labels={
            "release": settings.aapanel_release,
            "slot": settings.aapanel_slot,
            "environment": settings.environment,
            "python": platform.python_version(),
        },
        pool_limit=settings.db_pool_size + settings.db_max_overflow if database and database.kind != "sqlite" else None,
    )
    application = load(settings)
    metrics.pool.install()
    return Runtime(application, health.from_settings(settings), metrics, settings)


application = create_application(get_settings())
