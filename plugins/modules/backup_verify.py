#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Verify every byte of backups
version_added: 0.1.0
description:
  - Fails if a backup is not what was signed, or is not in the catalog of this host. Changes nothing.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
  - aapanel.pipeline.backups
options:
  name:
    description:
      - Name of the backup. Empty for the newest one.
    type: str
    default: ""
  all:
    description:
      - Whether to verify all backups. Those of the first format are left out, because they are not signed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Verify the newest backup
  aapanel.pipeline.backup_verify:

- name: Verify all backups
  aapanel.pipeline.backup_verify:
    all: true
"""

RETURN = r"""
verified:
  description: The result for each backup; C(problem) is empty if it is good.
  returned: success, and when a backup is not good
  type: list
  elements: dict
  sample: [{name: backup_20261122T213000Z_000042, problem: ""}]
left_out:
  description: Names of the backups of the first format, which are not signed.
  returned: success, and when a backup is not good
  type: list
  elements: str
  sample: [backup_20260101_000000]
status:
  description: The exit status that C(panelctl backup) has for this error.
  returned: failure
  type: int
  sample: 4
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, backup_service


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONFIG,
            "name": {"type": "str", "default": ""},
            "all": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("name", "all")],
        supports_check_mode=True,
    )
    name = module.params["name"]
    with backup_service(module) as service:
        found, old = service.verify_all() if module.params["all"] else ([service.verify(name)], [])
        left_out = [backup.name for backup in old]
        verified = [{"name": verdict.name, "problem": verdict.problem} for verdict in found]
        if bad := [verdict for verdict in found if verdict.problem]:
            status = max(verdict.status for verdict in bad)
            module.fail_json(msg=bad[0].problem, verified=verified, left_out=left_out, status=status)
        module.exit_json(changed=False, verified=verified, left_out=left_out)


if __name__ == "__main__":
    main()
