# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible callback that preloads plugins, so that tasks need not load them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import become_loader, connection_loader, shell_loader

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load connection plugins once
description:
  - Ansible forks a process for each task on each host, and each process loads the plugins for the connection.
  - Plugins that ansible-playbook itself has loaded are not loaded again. This saves a sixth of a task's time on the
    controller.
requirements: []
"""


class CallbackModule(CallbackBase):
    """Loads the plugins when a playbook starts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for name in ("community.docker.docker", "ansible.builtin.local"):
            connection_loader.get(name, class_only=True)
        shell_loader.get("sh")
        become_loader.get("sudo", class_only=True)
