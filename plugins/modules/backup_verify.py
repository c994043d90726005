#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Read every byte of backups, and compare
version_added: 0.1.0
description:
  - Fails where one is not what was signed, or not where or when it belongs. Changes nothing.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
  - aapanel.pipeline.backups
options:
  name:
    description:
      - Which one. Empty for the newest.
    type: str
    default: ""
  all:
    description:
      - Whether to verify all of them, but for those of the first format, which nothing proves.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Verify the newest backup
  aapanel.pipeline.backup_verify:

- name: Verify all of them
  aapanel.pipeline.backup_verify:
    all: true
"""

RETURN = r"""
verified:
  description: What was found of each.
  returned: success, and where one is not good
  type: list
  elements: dict
  sample: [{name: backup_20261122T213000Z_000042, problem: ""}]
left_out:
  description: Names of those of the first format, which nothing proves.
  returned: success, and where one is not good
  type: list
  elements: str
  sample: [backup_20260101_000000]
status:
  description: What panelctl would exit with.
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
