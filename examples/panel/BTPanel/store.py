# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of the app: the database engine, and Redis if it is configured."""

from __future__ import annotations

import os

import redis
from flask import Flask, current_app
from sqlalchemy.engine import Engine


def attach(app: Flask, engine: Engine) -> None:
    """Attach the engine and, if REDIS_URL is set, a Redis client to `app`. Both connect at first use."""
    address = os.environ.get("REDIS_URL")
    app.extensions["engine"] = engine
    app.extensions["redis"] = (
        redis.Redis.from_url(address, socket_timeout=1, socket_connect_timeout=1, decode_responses=True)
        if address
        else None
    )


def engine() -> Engine:
    """Return the engine of the current app."""
    found: Engine = current_app.extensions["engine"]
    return found


def client() -> redis.Redis | None:
    """Return the Redis client of the current app; None without REDIS_URL."""
    found: redis.Redis | None = current_app.extensions["redis"]
    return found


def count_visit() -> int | None:
    """Count a visit in Redis and return the total; None if Redis is not configured or does not answer."""
    connection = client()
    if connection is None:
        return None
    try:
        total: int = connection.incr("panel:visits")
    except redis.RedisError as error:
        current_app.logger.warning("visits are not counted: Redis: %s", type(error).__name__)
        return None
    return total
