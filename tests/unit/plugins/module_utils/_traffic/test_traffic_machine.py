# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the real host that need neither systemd nor nginx."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import UnhealthyError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings


@pytest.mark.parametrize("status", [0, 1, 3, 5])
def test_panelctl_creates_the_backup_which_may_be_partial(status: int, tmp_path: Path) -> None:
    program = tmp_path / "bin/panelctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >"$0.asked"\necho why it failed >&2\nexit {status}\n')
    program.chmod(0o755)
    host = Host(Settings(tmp_path, tmp_path, tmp_path, tmp_path))
    if status in (0, 3):
        host.backup("databases")
    else:
        with pytest.raises(UnhealthyError, match="why it failed"):
            host.backup("databases")
    assert (tmp_path / "bin/panelctl.asked").read_text() == "backup create databases --wait 300\n"
