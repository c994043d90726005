# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import start_time

MODULE = "aapanel.pipeline.deployment"


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible is not typed
    """Pass the process on the controller to the module, and end the lease of a dead deploy of the same controller.

    Only the controller can see that an earlier run was killed. Otherwise its lease would have to expire first.
    """

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; repeat it if an earlier run on this controller was interrupted."""
        super().run(tmp, task_vars)
        # This is a worker process; its parent is the run of the playbook.
        here = controller(os.getppid())
        args = {"owner": f"{getpass.getuser()}@{socket.gethostname()}", **self._task.args, "controller": here}
        result: dict[str, Any] = self._run_module(args, task_vars)
        busy = result.get("busy") or {}
        if here and is_dead(busy.get("controller") or {}, here):
            result = self._run_module({**args, "dead": busy["lease"]}, task_vars)
        return result

    def _run_module(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        return result


def controller(pid: int) -> dict[str, Any]:
    """Return data that identifies a process among all controllers; empty if the system does not provide it."""
    started = start_time(pid)
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return {}
    return {"host": socket.gethostname(), "boot_id": boot_id, "pid": pid, "started": started} if started else {}


def is_dead(other: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether a process of this controller has ended; False for a process of any other controller.

    :param other: the process, as returned by `controller`.
    :param here: this process.
    """
    if other.get("host") != here["host"] or not other.get("pid"):
        return False
    if other.get("boot_id") != here["boot_id"]:
        # The host may be a container with the same name, or have been rebooted.
        return False
    return start_time(int(other["pid"])) != other.get("started")
