# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible callback that records the duration of each task, for `scripts/stages`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: timings
type: aggregate
short_description: Record the duration of each task
description:
  - Appends one JSON line for each task of each playbook to the file in the environment variable E(AAPANEL_TIMINGS).
  - Without that variable it does nothing.
requirements: []
"""


class CallbackModule(CallbackBase):
    """Writes C({"playbook", "task", "action", "start", "seconds"}); C(start) is in seconds since the epoch."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "timings"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._file = os.environ.get("AAPANEL_TIMINGS", "")
        self.disabled = not self._file
        self._playbook = ""
        self._task: dict[str, Any] = {}

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = Path(playbook._file_name).name
        self._begin("startup", "")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        # A task with `until` counts as a wait.
        self._begin(task.get_name().strip(), "wait" if task.until else task.resolved_action or task.action)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, is_conditional=False)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end()

    def _begin(self, name: str, action: str) -> None:
        self._end()
        self._task = {"playbook": self._playbook, "task": name, "action": action, "start": time.time()}

    def _end(self) -> None:
        if self._task:
            line = json.dumps({**self._task, "seconds": round(time.time() - self._task["start"], 3)})
            # Write each line at once: parallel playbooks append to the same file.
            with Path(self._file).open("a", encoding="utf-8") as output:
                output.write(line + "\n")
            self._task = {}
