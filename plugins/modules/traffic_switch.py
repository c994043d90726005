#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_switch
short_description: Switch to another slot, or roll back
version_added: 0.1.0
description:
  - Makes a slot live that already holds a release, by one rename. The slot is started if necessary, and its health is
    checked before the switch, and through nginx after it. After a failure the live slot is the same as before.
  - Does the same as C(panelctl switch) and C(panelctl rollback) on the host.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
options:
  target:
    description:
      - The slot to make live. V(inactive) and V(previous) are the slot that is not live.
    type: str
    choices: [blue, green, inactive, previous]
    default: inactive
  rollback:
    description:
      - Whether to mark the release that is live now as bad. A switch to a bad release needs O(force).
    type: bool
    default: false
  force:
    description:
      - Switch even to a release that is marked bad.
    type: bool
    default: false
  confirm:
    description:
      - Whether to confirm the switch at once. Otherwise it is reverted, unless C(panelctl confirm) follows in time.
    type: bool
    default: true
  reason:
    description:
      - Reason for the history.
    type: str
    default: ""
  owner:
    description:
      - Name of the account that switches, for the history.
    type: str
    default: Ansible
  wait:
    description:
      - Seconds to wait for another operation.
    type: float
    default: 10
  config:
    description:
      - Path of the settings of panelctl on the host.
    type: path
    default: /etc/aapanel/panelctl.json
"""

EXAMPLES = r"""
- name: Roll back to the previous release
  aapanel.pipeline.traffic_switch:
    target: previous
    rollback: true
    reason: the login page is broken

- name: Show the effect of a switch to green
  aapanel.pipeline.traffic_switch:
    target: green
  check_mode: true
  diff: true
"""

RETURN = r"""
source:
  description: The slot that was live, and its release.
  returned: success
  type: dict
  sample: {slot: blue, release: 1.4.0-0123456789ab}
target:
  description: The slot that is live now, and its release.
  returned: success
  type: dict
  sample: {slot: green, release: 1.5.0-ba9876543210}
durations:
  description: Duration of each step, in seconds; empty in check mode, and if the target was already live.
  returned: success
  type: dict
  sample: {locked: 0.003, started: 0.03, healthy: 0.52, switched: 0.0002, verified: 3.1}
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import Engine
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import Owner, SlotRelease
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import load
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.switch import (
    TARGETS,
    SwitchRequest,
    plan,
    switch,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "str", "choices": list(TARGETS), "default": "inactive"},
            "rollback": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "confirm": {"type": "bool", "default": True},
            "reason": {"type": "str", "default": ""},
            "owner": {"type": "str", "default": "Ansible"},
            "wait": {"type": "float", "default": 10.0},
            "config": {"type": "path", "default": "/etc/aapanel/panelctl.json"},
        },
        supports_check_mode=True,
    )
    params = module.params
    kind = "rollback" if params["rollback"] else "switch"
    request = SwitchRequest(kind, params["target"], params["reason"], params["force"], params["confirm"])
    try:
        settings = load(Path(params["config"]))
        engine = Engine(settings, Host(settings))
        planned = plan(engine, request)
        durations = {}
        if planned is not None and not module.check_mode:
            done = switch(engine, request, Owner(params["owner"]), wait=params["wait"])
            if done is None:
                planned = None
            else:
                planned, durations = (done.source, done.target), done.durations
        if planned is None:
            traffic = engine.observe()
            live = SlotRelease(traffic.live, traffic.slots[traffic.live].release) if traffic.live else SlotRelease()
            module.exit_json(changed=False, source=asdict(live), target=asdict(live), durations={})
    except TrafficError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the host'}: {error.strerror or error}")
    source, target = planned
    module.exit_json(
        changed=True,
        source=asdict(source),
        target=asdict(target),
        durations=durations,
        diff={"before": _line(source), "after": _line(target)},
    )


def _line(live: SlotRelease) -> str:
    return f"live: {live.slot}: {live.release}\n" if live.slot else "live: nothing\n"


if __name__ == "__main__":
    main()
