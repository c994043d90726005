#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_info
short_description: See which slot serves what
version_added: 0.1.0
description:
  - Observes the live link, the release that each slot holds and whether each slot accepts connections.
  - With O(config) it tells what C(panelctl status) tells, too.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
options:
  base_dir:
    description:
      - Folder of the live link and the slots.
    type: path
    default: /opt/aapanel
  config_dir:
    description:
      - Folder of the slots' settings files.
    type: path
    default: /etc/aapanel
  service_file:
    description:
      - The file that describes what the slots run under, such as a unit. Its digest is returned.
    type: path
  config:
    description:
      - The settings of panelctl on the host. Asks the slots and nginx for their health.
    type: path
  history:
    description:
      - How many of the last operations RV(status) tells.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Which colour is live?
  aapanel.pipeline.traffic_info:
  register: traffic

- name: Say it
  ansible.builtin.debug:
    msg: "{{ traffic.live }} serves release {{ traffic.slots[traffic.live].release }}"
  when: traffic.live is not none
"""

RETURN = r"""
live:
  description: The slot that the live link points at, null before the first one.
  returned: success
  type: str
  sample: blue
idle:
  description: The slot that is free for the next release.
  returned: success
  type: str
  sample: green
slots:
  description: What each slot holds, by colour.
  returned: success
  type: dict
  contains:
    release:
      description: Id of the release, null for a slot that was never used.
      type: str
      sample: 1.4.0-0123456789ab
    fingerprint:
      description: SHA-256 of what the slot's settings were made of, null for a slot that was never used.
      type: str
    settings_release:
      description: Id of the release that its settings were made for.
      type: str
      sample: 1.4.0-0123456789ab
    address:
      description: Where it listens for probes.
      type: list
      sample: [127.0.0.1, 5001]
    listening:
      description: Whether the slot accepts connections.
      type: bool
      sample: true
status:
  description: What C(panelctl status --json) prints.
  returned: with O(config)
  type: dict
  sample: {live: blue, healthy: true, operation: null, maintenance: false}
service_digest:
  description: SHA-256 of O(service_file), null where it was not asked for or is not there.
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
