#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prune
short_description: Remove the backups that the retention does not keep
version_added: 0.1.0
description:
  - Verifies the newest backup first. Removes nothing if that backup is not good, or if the clock has jumped.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
"""

EXAMPLES = r"""
- name: Prune backups
  aapanel.pipeline.backup_prune:
"""

RETURN = r"""
removed:
  description: Names of the removed backups; in check mode, of those that would be removed.
  returned: success
  type: list
  elements: str
  sample: [backup_20261101T213000Z_000007]
kept:
  description: The kept backups, each with the reasons.
  returned: success
  type: dict
  sample: {backup_20261122T213000Z_000042: [newest, hourly]}
status:
  description: The exit status that C(panelctl backup) has for this error.
  returned: failure
  type: int
  sample: 5
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, WAIT, backup_service


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**CONFIG, **WAIT}, supports_check_mode=True)
    with backup_service(module) as service:
        decision = service.prune(dry_run=module.check_mode)
        before = sorted([*decision.keep, *decision.remove])
        module.exit_json(
            changed=bool(decision.remove),
            removed=decision.remove,
            kept=decision.keep,
            diff={
                "before": "".join(f"{name}\n" for name in before),
                "after": "".join(f"{name}\n" for name in before if name in decision.keep),
            },
        )


if __name__ == "__main__":
    main()
