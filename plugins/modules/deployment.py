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
  - A deploy is a state machine on the host. Each task asks for one step; whatever else the play does comes between.
  - What fails before V(switched) touches no traffic. From V(switched) until V(confirmed) traffic goes back by itself,
    when the check through nginx fails, and when nobody confirms in time because the controller died.
  - The lock is a lease. While a step runs, or a release is built, it is alive; between steps it lasts as long as
    C(lease_seconds) of O(settings). When the controller's own process is found dead by a later run on the same
    controller, the lease ends at once. Nothing that was settled that way can go on, each step proves that it still
    holds O(lease).
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
attributes:
  check_mode:
    details:
      - The step that begins tells which slot would be used; the others say that they would be taken, and do nothing.
  diff_mode:
    details:
      - The step that begins shows what is live and what would be.
options:
  settings:
    description:
      - What panelctl has to know of the host; the content of its C(panelctl.json).
    type: dict
    required: true
  step:
    description:
      - V(locked) begins the deploy and gives its lease; V(building) says that the backup is made, and begins the deploy
        where there is none and so no lease yet; V(prepared) empties the idle slot and gives it O(release); V(migrated)
        migrates the database with it; V(started) starts the slot and waits until it is healthy; V(switched) makes it
        live and looks through nginx; V(confirmed) keeps that, and has the old colour drained and stopped after the
        safety period; V(aborted) ends the deploy.
    type: str
    required: true
    choices: [locked, building, prepared, migrated, started, switched, confirmed, aborted]
  lease:
    description:
      - What the step that began returned. Needed by every other step.
    type: str
    default: ""
  release:
    description:
      - The release to deploy.
    type: str
    default: ""
  reason:
    description:
      - Why the deploy is V(aborted).
    type: str
    default: ""
  owner:
    description:
      - Who deploys, for the journal and for whoever finds the lock taken.
    type: str
    default: Ansible
  wait:
    description:
      - Seconds that the step that begins waits for somebody else's deploy.
    type: float
    default: 0
  controller:
    description:
      - The process on the controller; the action plugin tells it.
    type: dict
  dead:
    description:
      - Lease of a deploy whose controller is dead; the action plugin tells it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Begin
  aapanel.pipeline.deployment:
    settings: "{{ panelctl_settings }}"
    step: locked
    release: 1.4.0-0123456789ab
  register: deployment

- name: Give the idle slot its release
  aapanel.pipeline.deployment:
    settings: "{{ panelctl_settings }}"
    step: prepared
    lease: "{{ deployment.lease }}"
    release: 1.4.0-0123456789ab
"""

RETURN = r"""
lease:
  description: Proves to the next step that the deploy is still the caller's. Empty in check mode.
  returned: success
  type: str
  sample: 0f8fad5bd9cb469fa16570867728950e
slot:
  description: The slot that the release goes to.
  returned: success
  type: str
  sample: green
state:
  description: State of the deploy; V(ended) after O(step=confirmed) and O(step=aborted).
  returned: success
  type: str
  sample: healthy
durations:
  description: Seconds that each state took so far.
  returned: success
  type: dict
  sample: {locked: 0.01, built: 9.8, healthy: 2.1}
busy:
  description: Whose deploy is in the way.
  returned: when somebody else's is
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
    """Take the step; None where the deploy has ended already.

    :raises TrafficError: as the step does.
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


def foresee(known: settings.Settings, params: dict[str, Any]) -> dict[str, Any]:
    """What a real run would do, in check mode."""
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
            module.exit_json(changed=True, **foresee(known, params))
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
