# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one schema of the environment: every variable, its default, its meaning, its check.

A field's name in upper case is the variable's name. ``.env.example``, the reference and ``check`` are made from here.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings as PydanticBaseSettings
from pydantic_settings import PydanticBaseSettingsSource, SettingsConfigDict

from . import database, redis
from .problems import Problem, SettingsError, redact

Environment = Literal["development", "staging", "production"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
HealthRoute = Literal["live", "ready", "metrics"]

SECRET_KEY_LENGTH = 32
# Longest path that fits into sockaddr_un.sun_path with its closing zero, see unix(7).
SOCKET_PATH_LENGTH = 107
_FEWEST_DIFFERENT = 10
_DEVELOPMENT_KEY = "development only: everybody can read this key"
_NEW_KEY = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
_PLACEHOLDER = re.compile(r"change.?me|your.?secret|example|placeholder|^secret|development only", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_OWN_PREFIX = "AAPANEL_"

# Where the values come from; None is the process's environment. `check --env-file` reads a file instead.
_ENVIRON: ContextVar[Mapping[str, str] | None] = ContextVar("environ", default=None)


def _environ() -> Mapping[str, str]:
    given = _ENVIRON.get()
    return os.environ if given is None else given


@contextmanager
def _reading(environ: Mapping[str, str]) -> Iterator[None]:
    token = _ENVIRON.set(environ)
    try:
        yield
    finally:
        _ENVIRON.reset(token)


def _wrong(what: str, cure: str) -> PydanticCustomError:
    # Neither sentence is a template here: a brace in it is a brace.
    return PydanticCustomError("aapanel", "{what} {cure}", {"what": what, "cure": cure})


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _engine(value: object) -> object:
    return database.KINDS.get(value.lower(), value) if isinstance(value, str) else value


def _variable(  # noqa: PLR0913 - one declaration, read as a table row
    default: object,
    description: str,
    expects: str,
    group: str,
    *,
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
) -> Any:  # noqa: ANN401 - as pydantic's Field, it stands where a value of the field's type is expected
    """Declare a variable: ``expects`` completes "Set it to …"."""
    about: dict[str, Any] = {"expects": expects, "group": group, "secret": secret}
    return Field(default, description=description, json_schema_extra=about, ge=ge, gt=gt, le=le, pattern=pattern)


class _ExactEnvironment(PydanticBaseSettingsSource):
    """Reads variables by their exact upper-case name and hands values on as text.

    The stock source also takes ``host`` for ``HOST`` and wants JSON for lists. An empty variable counts as unset,
    as an empty line of an environment file is meant.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the interface
        return _environ().get(field_name.upper()) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class BaseSettings(PydanticBaseSettings):
    """What all environments share. Use :func:`get_settings`: it picks the class and explains what is wrong."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # Application -----------------------------------------------------------------------------------------------
    environment: Environment = _variable(
        "production",
        "Which set of rules applies. Production and staging refuse a weak SECRET_KEY; production also refuses DEBUG.",
        "development, staging or production",
        "Application",
    )
    secret_key: SecretStr = _variable(
        SecretStr(_DEVELOPMENT_KEY),
        "Signs sessions and tokens, so it must be random and never shared. In development a public key is the default.",
        f"at least {SECRET_KEY_LENGTH} random characters",
        "Application",
        secret=True,
    )
    debug: bool = _variable(
        False, "The application's debug mode. Refused in production.", "true or false", "Application"
    )
    session_lifetime: int = _variable(
        86400, "How long a login lasts, in seconds.", "a number of seconds, at least 60", "Application", ge=60
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_split)] = _variable(
        (),
        "Origins that may call the application from a browser, separated by commas; * allows every origin.",
        "origins such as https://panel.example.com, separated by commas",
        "Application",
    )

    # Network ---------------------------------------------------------------------------------------------------
    host: str = _variable("127.0.0.1", "Address that the TCP port binds.", "an IP address or host name", "Network")
    port: int = _variable(5000, "TCP port.", "a TCP port, 1 to 65535", "Network", ge=1, le=65535)
    domain: str | None = _variable(
        None, "Public name of the panel, without scheme or path.", "a host name such as panel.example.com", "Network"
    )

    # Database --------------------------------------------------------------------------------------------------
    database_url: SecretStr | None = _variable(
        None,
        "Database as one URL: postgresql://, mysql:// or sqlite:///. Wins over DB_ENGINE and its friends.",
        "a URL such as postgresql://user:password@127.0.0.1:5432/panel",
        "Database",
        secret=True,
    )
    db_engine: Annotated[Literal["postgresql", "mysql", "sqlite"] | None, BeforeValidator(_engine)] = _variable(
        None, "Kind of database, where DATABASE_URL is not set.", "postgresql, mysql or sqlite", "Database"
    )
    db_host: str = _variable(
        "127.0.0.1",
        "Database server; a path is a unix socket.",
        "a host name, an IP address or an absolute path",
        "Database",
    )
    db_port: int | None = _variable(
        None,
        "Port of the database server; unset is the usual one.",
        "a TCP port, 1 to 65535",
        "Database",
        ge=1,
        le=65535,
    )
    db_name: str | None = _variable(None, "Database; for SQLite the path of its file.", "a name or a path", "Database")
    db_user: str | None = _variable(None, "User of the database.", "a user name", "Database")
    db_password: SecretStr | None = _variable(None, "Password of that user.", "the password", "Database", secret=True)
    db_pool_size: int = _variable(
        5, "Connections that a worker's pool keeps open.", "a number from 1 to 1000", "Database", ge=1, le=1000
    )
    db_max_overflow: int = _variable(
        10, "Connections above that under load.", "a number from 0 to 1000", "Database", ge=0, le=1000
    )
    db_pool_timeout: float = _variable(
        30.0, "How long a request waits for a connection, in seconds.", "a number of seconds", "Database", gt=0, le=3600
    )
    db_pool_recycle: int = _variable(
        1800,
        "Age at which a connection is replaced, in seconds; -1 is never.",
        "a number of seconds, or -1",
        "Database",
        ge=-1,
    )
    db_pool_pre_ping: bool = _variable(True, "Test a connection before it is used.", "true or false", "Database")

    # Redis -----------------------------------------------------------------------------------------------------
    redis_url: SecretStr | None = _variable(
        None,
        "Redis as a URL: redis://, rediss:// (TLS) or unix://.",
        "a URL such as redis://:password@127.0.0.1:6379/0",
        "Redis",
        secret=True,
    )

    # Logging ---------------------------------------------------------------------------------------------------
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = _variable(
        "INFO",
        "Least severe message that gunicorn and this package write. The application's own loggers are left alone.",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "Logging",
    )
    log_to_console: bool = _variable(
        True, "Whether this package writes its messages to standard error (the journal).", "true or false", "Logging"
    )

    # Release and slot ------------------------------------------------------------------------------------------
    aapanel_app: str = _variable(
        "app:app",
        'The WSGI application as "module:attribute"; "module:function()" calls a factory.',
        "module:attribute, such as BTPanel:app",
        "Release",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?$",
    )
    aapanel_home: str | None = _variable(
        None, "Working directory of the application, and first on its import path.", "an absolute path", "Release"
    )
    aapanel_release: str = _variable(
        "",
        "Release that is served; every response carries it as X-Release.",
        "letters, digits and . _ + -",
        "Release",
        pattern=r"^[A-Za-z0-9._+-]{0,128}$",
    )
    aapanel_slot: str = _variable(
        "",
        "Slot that serves; every response carries it as X-Slot.",
        "lower-case letters, digits and -, such as blue",
        "Release",
        pattern=r"^[a-z0-9-]{0,32}$",
    )

    # Server ----------------------------------------------------------------------------------------------------
    aapanel_socket: str | None = _variable(
        None,
        "Unix socket to bind beside the TCP port. Its folder decides who may connect, and whoever may is believed "
        "about X-Real-IP and X-Forwarded-Proto.",
        f"an absolute path of at most {SOCKET_PATH_LENGTH} bytes",
        "Server",
    )
    aapanel_workers: int = _variable(
        0,
        "Worker processes; 0 is 2 x CPUs + 1, as many as half of the memory can hold (two slots run during a deploy).",
        "a number from 0 to 256",
        "Server",
        ge=0,
        le=256,
    )
    aapanel_worker_memory_mb: int = _variable(
        128, "Memory that one worker is expected to need, in MiB.", "a number of MiB, at least 16", "Server", ge=16
    )
    aapanel_worker_class: Annotated[Literal["gevent", "gthread", "sync"], BeforeValidator(_lower)] = _variable(
        "gevent",
        "Kind of worker. WebSockets need gevent, or gthread for a few.",
        "gevent, gthread or sync",
        "Server",
    )
    aapanel_worker_connections: int = _variable(
        1000, "Connections that a gevent worker holds at once.", "a number from 1 to 65535", "Server", ge=1, le=65535
    )
    aapanel_threads: int = _variable(
        8, "Threads of a gthread worker.", "a number from 1 to 512", "Server", ge=1, le=512
    )
    aapanel_timeout: int = _variable(
        120,
        "Seconds without a sign of life after which a worker is killed. For gevent that is a blocked loop, for others "
        "a slow request.",
        "a number of seconds, 1 to 3600",
        "Server",
        ge=1,
        le=3600,
    )
    aapanel_graceful_timeout: int = _variable(
        30, "Seconds that open requests get at a stop.", "a number of seconds, 1 to 3600", "Server", ge=1, le=3600
    )
    aapanel_max_requests: int = _variable(
        1000,
        "Requests after which a worker is replaced, plus up to a tenth at random; 0 is never.",
        "a number of requests, or 0",
        "Server",
        ge=0,
    )
    aapanel_access_log: bool = _variable(
        False, "Whether gunicorn logs every request to standard output.", "true or false", "Server"
    )
    aapanel_forwarded_allow_ips: str = _variable(
        "127.0.0.1,::1",
        "TCP peers that are believed about X-Forwarded-Proto, separated by commas.",
        "IP addresses separated by commas",
        "Server",
    )

    # Health ----------------------------------------------------------------------------------------------------
    aapanel_migrate_command: str = _variable(
        "auto",
        "How the database is migrated before a release is started.",
        "auto (Alembic, where there is an alembic.ini), a command, or nothing",
        "Application",
    )
    aapanel_migrate_contract: Annotated[Literal["refuse", "allow"], BeforeValidator(_lower)] = _variable(
        "refuse",
        "What to do with migrations that do more than add: the old release serves on with the new tables, and may come "
        "back. Alembic's are judged before they run.",
        "refuse or allow",
        "Application",
    )
    aapanel_app_routes: Annotated[tuple[HealthRoute, ...], BeforeValidator(_split)] = _variable(
        (),
        "Routes below /health/ that the application serves itself, separated by commas.",
        "live, ready and metrics, separated by commas",
        "Health",
    )
    aapanel_health_timeout: float = _variable(
        2.0,
        "How long /health/ready waits for an answer, in seconds.",
        "a number of seconds, 0.1 to 30",
        "Health",
        ge=0.1,
        le=30,
    )
    aapanel_metrics_dir: str | None = _variable(
        None,
        "Folder, best on tmpfs, in which the workers of one slot share their metrics. gunicorn makes a temporary one "
        "where it is unset.",
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
        """Take overrides first, then the environment; no files."""
        return init_settings, _ExactEnvironment(settings_cls)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            return SecretStr(database.parse(value.get_secret_value()).url)
        except database.DatabaseURLError as error:
            raise _wrong(error.what, error.cure) from None

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                redis.parse(value.get_secret_value())
            except redis.RedisURLError as error:
                raise _wrong(error.what, error.cure) from None
        return value

    @field_validator("aapanel_home", "aapanel_socket", "aapanel_metrics_dir")
    @classmethod
    def _check_path(cls, value: str | None) -> str | None:
        if value is not None and not PurePosixPath(value).is_absolute():
            raise _wrong("is not an absolute path.", "Begin it with /.")
        return value

    @field_validator("aapanel_socket")
    @classmethod
    def _check_socket(cls, value: str | None) -> str | None:
        if value is not None and len(os.fsencode(value)) > SOCKET_PATH_LENGTH:
            raise _wrong(
                f"is longer than {SOCKET_PATH_LENGTH} bytes, the limit for a unix socket.", "Choose a shorter path."
            )
        return value

    @field_validator("domain")
    @classmethod
    def _check_domain(cls, value: str | None) -> str | None:
        if value is not None and not _HOST_NAME.fullmatch(value):
            raise _wrong(
                "is not a host name.", "Write only the name, such as panel.example.com: no scheme, port or path."
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _is_origin(origin):
                raise _wrong("holds something that is no origin.", "Write scheme://host[:port] without a path, or *.")
        return value

    @property
    def database(self) -> database.Database | None:
        """The configured database: from ``DATABASE_URL``, else from ``DB_ENGINE`` and its friends, else none."""
        if self.database_url is not None:
            return database.parse(self.database_url.get_secret_value())
        if self.db_engine is None or not self.db_name:
            return None
        if self.db_engine == "sqlite":
            return database.Database("sqlite", self.db_name)
        return database.Database(
            self.db_engine,
            self.db_name,
            host=self.db_host,
            port=self.db_port,
            user=self.db_user or "",
            password=self.db_password.get_secret_value() if self.db_password else "",
        )

    @property
    def redis(self) -> redis.Redis | None:
        """The configured Redis server, or none."""
        return redis.parse(self.redis_url.get_secret_value()) if self.redis_url else None


class DevelopmentSettings(BaseSettings):
    """On the developer's machine: nothing is required."""

    environment: Literal["development"] = "development"


class _DeployedSettings(BaseSettings):
    secret_key: SecretStr = cast(
        "SecretStr",
        Field(
            description=BaseSettings.model_fields["secret_key"].description,
            json_schema_extra=cast("dict[str, Any]", BaseSettings.model_fields["secret_key"].json_schema_extra),
        ),
    )

    @field_validator("secret_key")
    @classmethod
    def _check_secret_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if len(key) < SECRET_KEY_LENGTH:
            raise _wrong(f"has {len(key)} characters, {SECRET_KEY_LENGTH} are needed.", _NEW_KEY)
        if _PLACEHOLDER.search(key):
            raise _wrong("is a placeholder.", _NEW_KEY)
        if len(set(key)) < _FEWEST_DIFFERENT:
            raise _wrong(f"has fewer than {_FEWEST_DIFFERENT} different characters.", _NEW_KEY)
        return value


class StagingSettings(_DeployedSettings):
    """Like production, but debugging is allowed."""

    environment: Literal["staging"] = "staging"


class ProductionSettings(_DeployedSettings):
    """Where it counts."""

    environment: Literal["production"] = "production"

    @field_validator("debug")
    @classmethod
    def _check_debug(cls, value: bool) -> bool:
        if value:
            raise _wrong("is on in production: it shows code and data to visitors.", "Set it to false.")
        return value


CLASSES: Mapping[str, type[BaseSettings]] = {
    "development": DevelopmentSettings,
    "staging": StagingSettings,
    "production": ProductionSettings,
}
FIELDS: Mapping[str, FieldInfo] = {name.upper(): field for name, field in BaseSettings.model_fields.items()}


def extra(name: str) -> dict[str, Any]:
    """Return what the schema says about a variable beside its type: ``expects``, ``group``, ``secret``."""
    return cast("dict[str, Any]", FIELDS[name].json_schema_extra)


def secret_values(environ: Mapping[str, str]) -> set[str]:
    """Return the values of an environment that no message may repeat."""
    return {environ[name] for name in FIELDS if extra(name)["secret"] and environ.get(name)}


def get_settings(environment: str | None = None, **overrides: object) -> BaseSettings:
    """Return the settings of this process's environment.

    ``environment`` chooses the class and wins over ``ENVIRONMENT``; ``overrides`` are fields (lower case) that win over
    variables.

    Raises:
        SettingsError: with every problem, and no secret.
    """
    settings, problems = examine(_environ(), environment, **overrides)
    if settings is None:
        raise SettingsError(problem for problem in problems if problem.level == "error")
    return settings


def examine(
    environ: Mapping[str, str], environment: str | None = None, **overrides: object
) -> tuple[BaseSettings | None, list[Problem]]:
    """Validate an environment: the settings (none if they cannot be used) and every problem.

    Unknown ``AAPANEL_*`` names are found by :func:`unknown`, not here: they are no reason not to start.
    """
    chosen = environment or environ.get("ENVIRONMENT") or "production"
    cls = CLASSES.get(chosen)
    if cls is not None:
        overrides["environment"] = chosen
    unexpected = sorted(name for name in overrides if name not in BaseSettings.model_fields)
    if unexpected:
        raise TypeError(f"get_settings() got unknown settings: {', '.join(unexpected)}")
    settings: BaseSettings | None = None
    problems: list[Problem] = []
    with _reading(environ):
        try:
            # An unknown environment is reported by its own field; the strictest rules apply to the others.
            settings = (cls or ProductionSettings)(**cast("dict[str, Any]", overrides))
        except ValidationError as error:
            problems += _explain(error, environ, overrides)
    problems += _database_problems(lambda name: str(overrides.get(name.lower()) or environ.get(name) or ""))
    order = list(FIELDS)
    problems.sort(key=lambda problem: order.index(problem.name))
    return (None if any(problem.level == "error" for problem in problems) else settings), problems


def unknown(environ: Mapping[str, str], *, whole: bool) -> list[Problem]:
    """Report variables that look meant for us but are none of ours.

    Every unknown ``AAPANEL_*`` is an error. ``whole`` says that the environment holds nothing but settings (a file):
    then a near miss of another name is a warning.
    """
    problems = []
    for name in sorted(environ):
        if name in FIELDS:
            continue
        ours = name.startswith(_OWN_PREFIX)
        if not ours and not whole:
            continue
        # Compared without the prefix, which would make all of ours look alike.
        candidates = {known.removeprefix(_OWN_PREFIX): known for known in FIELDS}
        near = difflib.get_close_matches(name.removeprefix(_OWN_PREFIX), candidates, n=1, cutoff=0.6 if ours else 0.85)
        if near:
            cure = f"Did you mean {candidates[near[0]]}?"
            problems.append(Problem(name, "is not a known variable.", cure, "error" if ours else "warning"))
        elif ours:
            problems.append(Problem(name, "is not a known variable.", "Remove it."))
    return problems


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0) and not (
            parts.path or parts.query or parts.fragment or "@" in parts.netloc
        )
    except ValueError:
        return False


def _explain(error: ValidationError, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Iterator[Problem]:
    secrets = secret_values(environ)
    seen = set()
    for detail in error.errors(include_url=False, include_context=True):
        name = str(detail["loc"][0]).upper()
        if name in seen:
            continue
        seen.add(name)
        about = extra(name)
        context = detail.get("ctx", {})
        cure = f"Set it to {about['expects']}."
        if detail["type"] == "missing":
            yield Problem(name, "is not set.", _NEW_KEY if name == "SECRET_KEY" else cure)
            continue
        own = detail["type"] == "aapanel"
        what = context["what"] if own else "cannot be used."
        if not about["secret"]:
            value = str(overrides.get(name.lower(), environ.get(name, "")))
            what = f"{redact(_shorten(value), secrets)!r} {what}"
        yield Problem(name, what, context["cure"] if own else cure)


_SHOWN = 80


def _shorten(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"


def _database_problems(value: Callable[[str], str]) -> Iterator[Problem]:
    """Find what no single ``DB_*`` variable shows."""
    parts = [name for name in ("DB_ENGINE", "DB_NAME", "DB_USER", "DB_PASSWORD") if value(name)]
    if value("DATABASE_URL"):
        if parts:
            yield Problem(
                "DATABASE_URL",
                f"is used, so {', '.join(parts)} is not.",
                "Remove the one that you do not mean.",
                "warning",
            )
        return
    engine = value("DB_ENGINE").lower()
    if not engine:
        if parts:
            yield Problem("DB_ENGINE", f"is not set, but {parts[0]} is.", "Set it to postgresql, mysql or sqlite.")
        return
    if not value("DB_NAME"):
        yield Problem("DB_NAME", "is not set, but DB_ENGINE is.", "Name the database; for SQLite the path of its file.")
    if not value("DB_USER") and database.KINDS.get(engine) in ("postgresql", "mysql"):
        yield Problem("DB_USER", "is not set, but DB_ENGINE names a server.", "Set it to the user of the database.")
