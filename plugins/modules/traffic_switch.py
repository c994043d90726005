#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_switch
short_description: Give all traffic to another slot, or back to the one before
version_added: 0.1.0
description:
  - Makes a slot live that holds a release already, by one rename. It is started if it is not warm, and asked for its
    health first; afterwards nginx is asked. What fails leaves traffic where it was.
  - The same as C(panelctl switch) and C(panelctl rollback) on the host.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
options:
  target:
    description:
      - A colour, the slot that is V(inactive), or the V(previous) one.
    type: str
    choices: [blue, green, inactive, previous]
    default: inactive
  rollback:
    description:
      - Whether the release that is left counts as bad from now on, and is not rolled back to.
    type: bool
    default: false
  force:
    description:
      - Switch even to a release that is marked bad.
    type: bool
    default: false
  confirm:
    description:
      - Whether to keep the switch at once. Otherwise it goes back, unless C(panelctl confirm) follows in time.
    type: bool
    default: true
  reason:
    description:
      - Why, for the journal.
    type: str
    default: ""
  owner:
    description:
      - Who switches, for the journal.
    type: str
    default: Ansible
  wait:
    description:
      - Seconds to wait for somebody else's deploy or switch.
    type: float
    default: 10
  config:
    description:
      - The settings of panelctl on the host.
    type: path
    default: /etc/aapanel/panelctl.json
"""

EXAMPLES = r"""
- name: Back to the release before
  aapanel.pipeline.traffic_switch:
    target: previous
    rollback: true
    reason: the login page is broken

- name: What would a switch to green do?
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
  description: Seconds that each step took; empty in check mode, and where nothing was to do.
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
    wanted = SwitchRequest(kind, params["target"], params["reason"], params["force"], params["confirm"])
    try:
        settings = load(Path(params["config"]))
        engine = Engine(settings, Host(settings))
        planned = plan(engine, wanted)
        durations = {}
        if planned is not None and not module.check_mode:
            done = switch(engine, wanted, Owner(params["owner"]), wait=params["wait"])
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


def _line(place: SlotRelease) -> str:
    return f"live: {place.slot}: {place.release}\n" if place.slot else "live: nothing\n"


if __name__ == "__main__":
    main()
