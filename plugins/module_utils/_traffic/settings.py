# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import TrafficError


@dataclass(frozen=True)
class Settings:
    """What panelctl has to know of its host. The role app writes it as JSON; the names are those of the keys.

    All durations are in seconds. ``docs/inventory.md`` documents the variables behind them.
    """

    base_dir: Path
    config_dir: Path
    data_dir: Path
    run_dir: Path
    service: str = "systemd"
    two_colours: bool = True
    domain: str = "localhost"
    http_port: int = 80
    https_port: int = 443
    supervisor_bin_dir: Path = Path("/usr/bin")
    # Health of a slot before it gets traffic.
    healthy_passes: int = 3
    healthy_timeout: float = 60.0
    websocket_path: str = ""
    # What has to be right through nginx after a switch, and for how long it is looked at.
    verify_paths: tuple[str, ...] = ("/",)
    verify_seconds: float = 2.0
    # A switch that nobody confirms within this time goes back.
    confirm_seconds: float = 60.0
    # How long the old colour stays warm, and how long its open connections may keep it beyond that.
    safety_seconds: float = 30.0
    drain_seconds: float = 300.0
    # How long a silent controller counts as alive.
    lease_seconds: float = 300.0
    textfile_dir: Path | None = None
    # Whether to tell the URL in `webhook_file`; the file may be one that is no longer wanted.
    webhook: bool = False

    @property
    def state_dir(self) -> Path:
        """Where the operation at work and the journal are kept."""
        return self.data_dir / "traffic"

    @property
    def live_link(self) -> Path:
        """The link that says which slot is live."""
        return self.base_dir / "live"

    @property
    def maintenance_file(self) -> Path:
        """While it exists, nginx answers with the maintenance page."""
        return self.base_dir / "maintenance"

    @property
    def webhook_file(self) -> Path:
        """Holds the URL to notify, which may have a token in it."""
        return self.config_dir / "webhook"

    def slot_dir(self, slot: str) -> Path:
        """The folder of a slot, with the links to its release and its socket."""
        return self.base_dir / "slots" / slot

    def slot_env(self, slot: str) -> Path:
        """The settings file of a slot."""
        return self.config_dir / f"{slot}.env"

    def slot_socket(self, slot: str) -> Path:
        """Where a slot listens for nginx."""
        return self.run_dir / f"{slot}.sock"


def load(path: Path) -> Settings:
    """Read the settings of this host.

    Raises:
        TrafficError: the file is missing, is no JSON, or has a key that nobody knows.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrafficError(f"cannot read {path}: {error.strerror}; site.yml writes it, and root may read it") from error
    except ValueError as error:
        raise TrafficError(f"{path} is no JSON ({error}); run site.yml to write it anew") from error
    if not isinstance(content, dict):
        raise TrafficError(f"{path} holds no settings; run site.yml to write it anew")
    return build(content, str(path))


def build(content: Mapping[str, Any], name: str) -> Settings:
    """Make settings of what JSON or Ansible gave, which may be text where a number is meant.

    Raises:
        TrafficError: a key that nobody knows, one missing, or a value that cannot be meant; says which, and in what
            (*name*).
    """
    known = {field.name: str(field.type) for field in fields(Settings)}
    if unknown := sorted(set(content) - set(known)):
        raise TrafficError(f"{name} has {', '.join(unknown)}, which nobody knows; known are {', '.join(known)}")
    try:
        return Settings(**{key: _convert(name, key, known[key], value) for key, value in content.items()})
    except TypeError as error:
        raise TrafficError(f"{name}: {error}") from error


def _convert(name: str, key: str, kind: str, value: object) -> Any:  # noqa: ANN401 (what the field has)
    try:
        return _CONVERT[kind](value)
    except (ValueError, TypeError, KeyError):
        raise TrafficError(f"{name}: {key} is {value!r}, but has to be {_KINDS[kind]}") from None


def _path(value: object) -> Path:
    if not isinstance(value, (str, Path)) or not Path(value).is_absolute():
        raise ValueError
    return Path(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return tuple(map(_text, value))


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "Path": _path,
    "Path | None": lambda value: _path(value) if value else None,
    "str": _text,
    "int": int,
    "float": float,
    "bool": lambda value: {"true": True, "false": False}[str(value).lower()],
    "tuple[str, ...]": _texts,
}
_KINDS = {
    "Path": "an absolute path",
    "Path | None": "an absolute path, or empty",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
}
