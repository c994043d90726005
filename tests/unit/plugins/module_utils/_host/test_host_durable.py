# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.aapanel.pipeline.plugins.module_utils._host import durable


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """Root writes into folders that belong to the app."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    victim.chmod(0o644)
    (tmp_path / f".env.{os.getpid()}").symlink_to(victim)
    durable.write(tmp_path / "env", "text", 0o600)
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("mine", 0o644)
    assert (tmp_path / "env").read_text() == "text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "victim"]
