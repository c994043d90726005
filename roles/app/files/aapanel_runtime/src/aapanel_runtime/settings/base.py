# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the settings: every variable with its default, meaning and checks.

The name of a field in upper case is the name of the variable. ``.env.example`` and the reference are generated from
this schema.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr, field_validator
from pydantic_settings import BaseSettings as PydanticBaseSettings
from pydantic_settings import PydanticBaseSettingsSource, SettingsConfigDict

from ..database import redis, url
from .source import ExactEnvironment
from .variable import database_kind, invalid, is_host_name, is_origin, lower, split, upper, variable

Environment = Literal["development", "staging", "production"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
HealthRoute = Literal["live", "ready", "metrics"]

SECRET_KEY_LENGTH = 32
# Longest path that fits into sockaddr_un.sun_path with its terminating zero, see unix(7).
SOCKET_PATH_LENGTH = 107
_DEVELOPMENT_KEY = "development only: everybody can read this key"


class BaseSettings(PydanticBaseSettings):
    """Settings of all environments. Use :func:`get_settings`, which selects the class and explains every problem."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # Application -----------------------------------------------------------------------------------------------
    environment: Environment = variable(
        "production",
        "Rules to apply. Production and staging refuse a weak SECRET_KEY; production also refuses DEBUG.",
        "development, staging or production",
        "Application",
    )
    secret_key: SecretStr = variable(
        SecretStr(_DEVELOPMENT_KEY),
        "Key that signs sessions and tokens: random, and used nowhere else. The default for development is public.",
        f"at least {SECRET_KEY_LENGTH} random characters",
        "Application",
        secret=True,
    )
    debug: bool = variable(
        False, "Debug mode of the application. Refused in production.", "true or false", "Application"
    )
    session_lifetime: int = variable(
        86400, "Lifetime of a login, in seconds.", "a number of seconds, at least 60", "Application", ge=60
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(split)] = variable(
        (),
        "Comma-separated origins that may call the application from a browser; * allows all.",
        "comma-separated origins such as https://panel.example.com",
        "Application",
    )
    aapanel_migrate_command: str = variable(
        "auto",
        "Command that migrates the database before a release is started.",
        "auto (Alembic, if there is an alembic.ini), a command, or nothing",
        "Application",
    )
    aapanel_migrate_contract: Annotated[Literal["refuse", "allow"], BeforeValidator(lower)] = variable(
        "refuse",
        "Whether to run pending Alembic migrations that contract the schema, although the previous release uses it "
        "until the switch, and after a rollback.",
        "refuse or allow",
        "Application",
    )

    # Network ---------------------------------------------------------------------------------------------------
    host: str = variable("127.0.0.1", "Address to listen on.", "an IP address or host name", "Network")
    port: int = variable(5000, "TCP port to listen on.", "a TCP port, 1 to 65535", "Network", ge=1, le=65535)
    domain: str | None = variable(
        None,
        "Public host name of the panel, without scheme or path.",
        "a host name such as panel.example.com",
        "Network",
    )

    # Database --------------------------------------------------------------------------------------------------
    database_url: SecretStr | None = variable(
        None,
        "URL of the database: postgresql://, mysql:// or sqlite:///. Overrides DB_ENGINE and the other DB_* variables.",
        "a URL such as postgresql://user:password@127.0.0.1:5432/panel",
        "Database",
        secret=True,
    )
    db_engine: Annotated[Literal["postgresql", "mysql", "sqlite"] | None, BeforeValidator(database_kind)] = variable(
        None, "Kind of database, if DATABASE_URL is not set.", "postgresql, mysql or sqlite", "Database"
    )
    db_host: str = variable(
        "127.0.0.1",
        "Host of the database server, or the path of its unix socket.",
        "a host name, an IP address or an absolute path",
        "Database",
    )
    db_port: int | None = variable(
        None,
        "Port of the database server; unset for its default port.",
        "a TCP port, 1 to 65535",
        "Database",
        ge=1,
        le=65535,
    )
    db_name: str | None = variable(
        None, "Name of the database; for SQLite the path of its file.", "a name or a path", "Database"
    )
    db_user: str | None = variable(None, "User to connect to the database as.", "a user name", "Database")
    db_password: SecretStr | None = variable(None, "Password of DB_USER.", "the password", "Database", secret=True)
    db_pool_size: int = variable(
        5, "Connections that the pool of each worker keeps open.", "a number from 1 to 1000", "Database", ge=1, le=1000
    )
    db_max_overflow: int = variable(
        10, "Additional connections under load.", "a number from 0 to 1000", "Database", ge=0, le=1000
    )
    db_pool_timeout: float = variable(
        30.0,
        "How long a request waits for a free connection, in seconds.",
        "a number of seconds",
        "Database",
        gt=0,
        le=3600,
    )
    db_pool_recycle: int = variable(
        1800,
        "Age at which a connection is replaced, in seconds; -1 means never.",
        "a number of seconds, or -1",
        "Database",
        ge=-1,
    )
    db_pool_pre_ping: bool = variable(
        True, "Whether to test a connection before each use.", "true or false", "Database"
    )

    # Redis -----------------------------------------------------------------------------------------------------
    redis_url: SecretStr | None = variable(
        None,
        "URL of Redis: redis://, rediss:// (TLS) or unix://.",
        "a URL such as redis://:password@127.0.0.1:6379/0",
        "Redis",
        secret=True,
    )

    # Logging ---------------------------------------------------------------------------------------------------
    log_level: Annotated[LogLevel, BeforeValidator(upper)] = variable(
        "INFO",
        "Lowest level that gunicorn and the runtime log. The loggers of the application are not changed.",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "Logging",
    )
    log_to_console: bool = variable(
        True, "Whether the runtime logs to standard error (the journal).", "true or false", "Logging"
    )

    # Release and slot ------------------------------------------------------------------------------------------
    aapanel_app: str = variable(
        "app:app",
        'WSGI application as "module:attribute"; "module:function()" calls a factory.',
        "module:attribute, such as BTPanel:app",
        "Release",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?$",
    )
    aapanel_home: str | None = variable(
        None,
        "Working directory of the application, and the first entry of its import path.",
        "an absolute path",
        "Release",
    )
    aapanel_release: str = variable(
        "",
        "Release ID, sent as X-Release with every response.",
        "letters, digits and . _ + -",
        "Release",
        pattern=r"^[A-Za-z0-9._+-]{0,128}$",
    )
    aapanel_slot: str = variable(
        "",
        "Name of the slot, sent as X-Slot with every response.",
        "lower-case letters, digits and -, such as blue",
        "Release",
        pattern=r"^[a-z0-9-]{0,32}$",
    )

    # Server ----------------------------------------------------------------------------------------------------
    aapanel_socket: str | None = variable(
        None,
        "Unix socket to listen on, in addition to the TCP port. X-Real-IP and X-Forwarded-Proto of its clients are "
        "trusted, so restrict access to its folder.",
        f"an absolute path of at most {SOCKET_PATH_LENGTH} bytes",
        "Server",
    )
    aapanel_workers: int = variable(
        0,
        "Worker processes; 0 means 2 x CPUs + 1, limited to half of the memory (two slots run during a deploy).",
        "a number from 0 to 256",
        "Server",
        ge=0,
        le=256,
    )
    aapanel_worker_memory_mb: int = variable(
        128, "Expected memory of one worker, in MiB.", "a number of MiB, at least 16", "Server", ge=16
    )
    aapanel_worker_class: Annotated[Literal["gevent", "gthread", "sync"], BeforeValidator(lower)] = variable(
        "gevent",
        "Kind of worker. WebSockets need gevent; gthread is enough for a few.",
        "gevent, gthread or sync",
        "Server",
    )
    aapanel_worker_connections: int = variable(
        1000, "Maximum concurrent connections of a gevent worker.", "a number from 1 to 65535", "Server", ge=1, le=65535
    )
    aapanel_threads: int = variable(8, "Threads of a gthread worker.", "a number from 1 to 512", "Server", ge=1, le=512)
    aapanel_timeout: int = variable(
        120,
        "Seconds without a heartbeat after which a worker is killed. A blocked event loop stops it for gevent, a slow "
        "request for the other kinds.",
        "a number of seconds, 1 to 3600",
        "Server",
        ge=1,
        le=3600,
    )
    aapanel_graceful_timeout: int = variable(
        30,
        "Seconds to wait for open requests when the server stops.",
        "a number of seconds, 1 to 3600",
        "Server",
        ge=1,
        le=3600,
    )
    aapanel_max_requests: int = variable(
        1000,
        "Requests after which a worker is replaced, plus up to a tenth at random; 0 means never.",
        "a number of requests, or 0",
        "Server",
        ge=0,
    )
    aapanel_access_log: bool = variable(
        False, "Whether gunicorn logs each request to standard output.", "true or false", "Server"
    )
    aapanel_forwarded_allow_ips: str = variable(
        "127.0.0.1,::1",
        "Comma-separated IP addresses of TCP clients whose X-Forwarded-Proto is trusted.",
        "comma-separated IP addresses",
        "Server",
    )

    # Health ----------------------------------------------------------------------------------------------------
    aapanel_app_routes: Annotated[tuple[HealthRoute, ...], BeforeValidator(split)] = variable(
        (),
        "Comma-separated routes below /health/ that the application serves instead of the runtime.",
        "a comma-separated choice of live, ready and metrics",
        "Health",
    )
    aapanel_health_timeout: float = variable(
        2.0,
        "How long /health/ready waits for the database and Redis, in seconds.",
        "a number of seconds, 0.1 to 30",
        "Health",
        ge=0.1,
        le=30,
    )
    aapanel_metrics_dir: str | None = variable(
        None,
        "Folder, preferably on tmpfs, in which the workers of one slot share their metrics. If unset, gunicorn creates "
        "a temporary folder.",
        "an absolute path",
        "Health",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[PydanticBaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the interface
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the interface
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the interface
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read overrides first, then the environment; no files."""
        return init_settings, ExactEnvironment(settings_cls)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            return SecretStr(url.parse(value.get_secret_value()).url)
        except url.DatabaseURLError as error:
            raise invalid(error.what, error.cure) from None

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                redis.parse(value.get_secret_value())
            except redis.RedisURLError as error:
                raise invalid(error.what, error.cure) from None
        return value

    @field_validator("aapanel_home", "aapanel_socket", "aapanel_metrics_dir")
    @classmethod
    def _check_path(cls, value: str | None) -> str | None:
        if value is not None and not PurePosixPath(value).is_absolute():
            raise invalid("is not an absolute path.", "Start it with /.")
        return value

    @field_validator("aapanel_socket")
    @classmethod
    def _check_socket(cls, value: str | None) -> str | None:
        if value is not None and len(os.fsencode(value)) > SOCKET_PATH_LENGTH:
            raise invalid(
                f"is longer than {SOCKET_PATH_LENGTH} bytes, the limit for a unix socket.", "Choose a shorter path."
            )
        return value

    @field_validator("domain")
    @classmethod
    def _check_domain(cls, value: str | None) -> str | None:
        if value is not None and not is_host_name(value):
            raise invalid(
                "is not a host name.", "Set it to a name such as panel.example.com, without scheme, port or path."
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not is_origin(origin):
                raise invalid("has an invalid origin.", "Use scheme://host[:port] without a path, or *.")
        return value

    @property
    def database(self) -> url.Database | None:
        """The database of ``DATABASE_URL``, else of ``DB_ENGINE`` and the other ``DB_*``; None if neither is set."""
        if self.database_url is not None:
            return url.parse(self.database_url.get_secret_value())
        if self.db_engine is None or not self.db_name:
            return None
        if self.db_engine == "sqlite":
            return url.Database("sqlite", self.db_name)
        return url.Database(
            self.db_engine,
            self.db_name,
            host=self.db_host,
            port=self.db_port,
            user=self.db_user or "",
            password=self.db_password.get_secret_value() if self.db_password else "",
        )

    @property
    def redis(self) -> redis.Redis | None:
        """The Redis server of ``REDIS_URL``; None if it is not set."""
        return redis.parse(self.redis_url.get_secret_value()) if self.redis_url else None
