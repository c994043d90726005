#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_info
short_description: Return the live slot and the release in each slot
version_added: 0.1.0
description:
  - Reads the live link, the release in each slot, and whether each slot accepts connections.
  - With O(config) it also returns the status that C(panelctl status) shows.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
options:
  base_dir:
    description:
      - Directory of the live link and the slots.
    type: path
    default: /opt/aapanel
  config_dir:
    description:
      - Directory of the slots' settings files.
    type: path
    default: /etc/aapanel
  service_file:
    description:
      - File that defines the service of the slots, such as a unit. Its digest is returned.
    type: path
  config:
    description:
      - Path of the settings of panelctl on the host. If set, the health of the slots and of nginx is checked.
    type: path
  history:
    description:
      - How many of the last operations RV(status) contains.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Read the slots
  aapanel.pipeline.traffic_info:
  register: traffic

- name: Show the live release
  ansible.builtin.debug:
    msg: "{{ traffic.live }} serves release {{ traffic.slots[traffic.live].release }}"
  when: traffic.live is not none
"""

RETURN = r"""
live:
  description: The slot that the live link names; null before the first deploy.
  returned: success
  type: str
  sample: blue
idle:
  description: The idle slot, which receives the next release.
  returned: success
  type: str
  sample: green
slots:
  description: The state of each slot, by name.
  returned: success
  type: dict
  contains:
    release:
      description: ID of the release; null for an unused slot.
      type: str
      sample: 1.4.0-0123456789ab
    fingerprint:
      description: SHA-256 of the input of the slot's settings; null for an unused slot.
      type: str
    settings_release:
      description: ID of the release in its settings file.
      type: str
      sample: 1.4.0-0123456789ab
    address:
      description: Host and port where it listens for health checks.
      type: list
      sample: [127.0.0.1, 5001]
    listening:
      description: Whether the slot accepts connections.
      type: bool
      sample: true
status:
  description: The output of C(panelctl status --json).
  returned: with O(config)
  type: dict
  sample: {live: blue, healthy: true, operation: null, maintenance: false}
service_digest:
  description: SHA-256 of O(service_file); null without that option or that file.
  returned: success
  type: str
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import status
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import Engine
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.observe import observe
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import load


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "base_dir": {"type": "path", "default": "/opt/aapanel"},
            "config_dir": {"type": "path", "default": "/etc/aapanel"},
            "service_file": {"type": "path"},
            "config": {"type": "path"},
            "history": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        traffic = observe(
            Path(params["base_dir"]),
            Path(params["config_dir"]),
            Path(params["service_file"]) if params["service_file"] else None,
        )
        found = asdict(traffic)
        if params["config"]:
            settings = load(Path(params["config"]))
            found["status"] = status.describe(Engine(settings, Host(settings)), params["history"])
    except TrafficError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
