#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment
short_description: Take one step of a deploy into the idle slot
version_added: 0.1.0
description:
  - A deploy is a state machine on the host. Each task takes one step; the play can run other tasks between them.
  - A failure before V(switched) leaves traffic untouched. From V(switched) until V(confirmed) the switch is reverted
    automatically if the check through nginx fails, or if it is not confirmed in time because the controller died.
  - The operation lock is a lease. It is alive while a step runs or a release is built; between steps it lasts
    C(lease_seconds) of O(settings). If a later run on the same controller finds the process of the deploy dead, the
    lease ends at once. A deploy that was settled cannot continue, because each step proves with O(lease) that it still
    holds the lock.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
attributes:
  check_mode:
    details:
      - The first step returns the slot that would be used; all other steps return changed and do nothing.
  diff_mode:
    details:
      - The first step shows the live release and the release that would be live.
options:
  settings:
    description:
      - The settings of panelctl, as in its C(panelctl.json).
    type: dict
    required: true
  step:
    description:
      - V(locked) begins the deploy and returns its lease.
      - V(building) records that the backup is done and the build begins. Without O(lease), it begins the deploy.
      - V(prepared) empties the idle slot and links it to O(release).
      - V(migrated) migrates the database with the release.
      - V(started) starts the slot and waits until it is healthy.
      - V(switched) makes the slot live and verifies it through nginx.
      - V(confirmed) confirms the switch. The previous slot is drained and stopped after the safety period.
      - V(aborted) ends the deploy.
    type: str
    required: true
    choices: [locked, building, prepared, migrated, started, switched, confirmed, aborted]
  lease:
    description:
      - The RV(lease) that the first step returned. Required by all other steps.
    type: str
    default: ""
  release:
    description:
      - The release to deploy.
    type: str
    default: ""
  reason:
    description:
      - Reason for V(aborted), for the history.
    type: str
    default: ""
  owner:
    description:
      - Name of the account that deploys, for the history and for errors of operations that find the lock taken.
    type: str
    default: Ansible
  wait:
    description:
      - Seconds that the first step waits for another operation.
    type: float
    default: 0
  controller:
    description:
      - The process on the controller; set by the action plugin.
    type: dict
  dead:
    description:
      - Lease of a deploy whose controller is dead; set by the action plugin.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Begin a deploy
  aapanel.pipeline.deployment:
    settings: "{{ panelctl_settings }}"
    step: locked
    release: 1.4.0-0123456789ab
  register: deployment

- name: Link the idle slot to the release
  aapanel.pipeline.deployment:
    settings: "{{ panelctl_settings }}"
    step: prepared
    lease: "{{ deployment.lease }}"
    release: 1.4.0-0123456789ab
"""

RETURN = r"""
lease:
  description: Fencing token, with which the next step proves that the deploy still holds the lock. Empty in check mode.
  returned: success
  type: str
  sample: 0f8fad5bd9cb469fa16570867728950e
slot:
  description: The slot of the new release.
  returned: success
  type: str
  sample: green
state:
  description: State of the deploy; V(ended) after O(step=confirmed) and O(step=aborted).
  returned: success
  type: str
  sample: healthy
durations:
  description: Duration of each state so far, in seconds.
  returned: success
  type: dict
  sample: {locked: 0.01, built: 9.8, healthy: 2.1}
busy:
  description: Owner and state of the operation that holds the lock.
  returned: failure, if another operation is in progress
  type: dict
  sample: {owner: ada@laptop, state: building}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.deploy import Deploy
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import Engine
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import BusyError, TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.observe import observe
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import Operation, Owner

STEPS = ("locked", "building", "prepared", "migrated", "started", "switched", "confirmed", "aborted")


def take(deploy: Deploy, params: dict[str, Any]) -> Operation | None:
    """Take the step and return the operation; None after an abort.

    :raises TrafficError: the step failed.
    """
    step = params["step"]
    if _begins(params):
        operation = deploy.lock(Owner(params["owner"], params["controller"]), wait=params["wait"], dead=params["dead"])
        return operation if step == "locked" else deploy.build()
    if step == "prepared":
        return deploy.prepare(params["release"])
    if step == "aborted":
        deploy.abort(params["reason"])
        return None
    steps = {
        "building": deploy.build,
        "migrated": deploy.migrate,
        "started": deploy.start,
        "switched": deploy.switch,
        "confirmed": deploy.confirm,
    }
    return steps[step]()


def _begins(params: dict[str, Any]) -> bool:
    return params["step"] == "locked" or (params["step"] == "building" and not params["lease"])


def predict(known: settings.Settings, params: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a step in check mode."""
    traffic = observe(known.base_dir, known.config_dir)
    slot = traffic.idle if known.two_colours else "blue"
    before = f"{traffic.live}: {traffic.slots[traffic.live].release}" if traffic.live else "nothing"
    diff = {"before": f"live: {before}\n", "after": f"live: {slot}: {params['release']}\n"}
    found = {"lease": "", "slot": slot, "state": params["step"], "durations": {}}
    return found | ({"diff": diff} if _begins(params) else {})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "step": {"type": "str", "required": True, "choices": list(STEPS)},
            "lease": {"type": "str", "default": ""},
            "release": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "owner": {"type": "str", "default": "Ansible"},
            "wait": {"type": "float", "default": 0.0},
            "controller": {"type": "dict"},
            "dead": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        known = settings.build(params["settings"], "settings")
        if module.check_mode:
            module.exit_json(changed=True, **predict(known, params))
        engine = Engine(known, Host(known))
        try:
            operation = take(Deploy(engine, params["lease"]), params)
        except BusyError as error:
            other = engine.operation_lock.current()
            busy = {} if other is None else {**asdict(other.owner), "state": other.state, "lease": other.token}
            module.fail_json(msg=str(error), busy=busy)
    except TrafficError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the host'}: {error.strerror or error}")
    if operation is None:
        module.exit_json(changed=True, lease="", slot="", state="ended", durations={})
    module.exit_json(
        changed=True,
        lease=operation.token,
        slot=operation.target.slot,
        state="ended" if params["step"] == "confirmed" else operation.state,
        durations=operation.durations,
    )


if __name__ == "__main__":
    main()
