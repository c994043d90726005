# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.services import Supervisor
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings

#: A supervisorctl that does not start a stopping program; the program has stopped after three calls.
CONTROL = """#!/bin/sh
shift 2
echo "$1" >>{place}/asked
looks=$(grep -c status {place}/asked)
case $1 in
  status) [ "$looks" -gt 2 ] && echo "$2 STOPPED" || echo "$2 STOPPING" ;;
  restart) [ "$looks" -gt 2 ] ;;
esac
"""


def test_a_stopping_slot_is_started_once_it_has_stopped(tmp_path):
    (tmp_path / "supervisorctl").write_text(CONTROL.format(place=tmp_path))
    (tmp_path / "supervisorctl").chmod(0o755)
    settings = Settings(tmp_path, tmp_path, tmp_path, tmp_path, "supervisor", supervisor_bin_dir=tmp_path)
    Supervisor(settings).start("blue")
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["pid", "update", "status", "status", "status", "restart"]
