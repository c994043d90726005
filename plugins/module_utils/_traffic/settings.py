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
    # What is backed up before a migration, of the sets of `backup.json`; empty for nothing.
    backup_set: str = ""

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
    def stopped_file(self) -> Path:
        """While it exists the panel was stopped, and nobody has started it since."""
        return self.state_dir / "stopped"

    @property
    def webhook_file(self) -> Path:
        """Holds the URL to notify, which may have a token in it."""
        return self.config_dir / "webhook"

    @property
    def backup_file(self) -> Path:
        """What is backed up on this host; not there where nothing is."""
        return self.config_dir / "backup.json"

    @property
    def shared_dir(self) -> Path:
        """What the app writes, for all releases."""
        return self.data_dir / "shared"

    @property
    def restored_dir(self) -> Path:
        """What a drill has restored; the unit of its panel binds a part of it."""
        return self.data_dir / "backup-state/drill"

    @property
    def rehearsal_dir(self) -> Path:
        """Where a drill's panel has its settings and its socket."""
        return self.run_dir.with_name(f"{self.run_dir.name}-drill")

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
        return build(settings.load(path), str(path))
    except settings.SettingsError as error:
        raise TrafficError(str(error)) from error


def build(content: Mapping[str, Any], name: str) -> Settings:
    """Make settings of what JSON or Ansible gave, which may be text where a number is meant.

    Raises:
        TrafficError: a key that nobody knows, one missing, or a value that cannot be meant; says which, and in what
            (*name*).
    """
    try:
        return settings.build(Settings, content, name)
    except settings.SettingsError as error:
        raise TrafficError(str(error)) from error
