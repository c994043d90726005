# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The settings of a host's slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._host import settings
from .errors import TrafficError


@dataclass(frozen=True)
class Settings:
    """The settings of panelctl. The role app writes them as JSON with the same keys.

    All durations are in seconds. ``docs/inventory.md`` documents the role variables.
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
    # Paths to check through nginx after a switch, and for how long.
    verify_paths: tuple[str, ...] = ("/",)
    verify_seconds: float = 2.0
    # A switch that is not confirmed within this time is reverted.
    confirm_seconds: float = 60.0
    # How long the previous slot stays started, and how long after the switch open connections may keep it.
    safety_seconds: float = 30.0
    drain_seconds: float = 300.0
    # Seconds after its last step until a controller is considered lost.
    lease_seconds: float = 300.0
    textfile_dir: Path | None = None
    # Whether to notify the URL in `webhook_file`; a disabled webhook leaves the file behind.
    webhook: bool = False
    # Backup set of `backup.json` to back up before a migration; empty for no backup.
    backup_set: str = ""

    @property
    def state_dir(self) -> Path:
        """Directory of the current operation and the history."""
        return self.data_dir / "traffic"

    @property
    def live_link(self) -> Path:
        """The live link, which names the live slot."""
        return self.base_dir / "live"

    @property
    def maintenance_file(self) -> Path:
        """While this file exists, nginx answers with the maintenance page."""
        return self.base_dir / "maintenance"

    @property
    def stopped_file(self) -> Path:
        """Exists from `panelctl stop` until the panel is started."""
        return self.state_dir / "stopped"

    @property
    def webhook_file(self) -> Path:
        """File with the webhook URL, which may contain a token."""
        return self.config_dir / "webhook"

    @property
    def backup_file(self) -> Path:
        """Settings of `panelctl backup`; missing on a host without backups."""
        return self.config_dir / "backup.json"

    @property
    def shared_dir(self) -> Path:
        """Persistent data of the app, shared by all releases."""
        return self.data_dir / "shared"

    @property
    def restored_dir(self) -> Path:
        """Data that a drill restored; the unit of the rehearsal mounts a part of it."""
        return self.data_dir / "backup-state/drill"

    @property
    def rehearsal_dir(self) -> Path:
        """Directory of the settings and the socket of a rehearsal."""
        return self.run_dir.with_name(f"{self.run_dir.name}-drill")

    def slot_dir(self, slot: str) -> Path:
        """Directory of a slot, with the links to its release and its socket."""
        return self.base_dir / "slots" / slot

    def slot_env(self, slot: str) -> Path:
        """Return the settings file of a slot."""
        return self.config_dir / f"{slot}.env"

    def slot_socket(self, slot: str) -> Path:
        """Return the unix socket where a slot listens for nginx."""
        return self.run_dir / f"{slot}.sock"


def load(path: Path) -> Settings:
    """Read the settings of this host.

    :raises TrafficError: the file is missing or not JSON, or has an unknown or invalid key.
    """
    try:
        return build(settings.load(path), str(path))
    except settings.SettingsError as error:
        raise TrafficError(str(error)) from error


def build(content: Mapping[str, Any], name: str) -> Settings:
    """Build settings from JSON or from Ansible, which may pass a number as text.

    :param name: name of the settings in errors.
    :raises TrafficError: a key is unknown or missing, or a value is invalid.
    """
    try:
        return settings.build(Settings, content, name)
    except settings.SettingsError as error:
        raise TrafficError(str(error)) from error
