#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill
short_description: Prove that the newest backups restore
version_added: 0.1.0
description:
  - Restores them beside the panel, which serves on, from archive and key alone; compares rows and canaries; starts the
    live release on what was restored and asks for its health.
  - Fails where the recovery time (RTO) or the age of the data (RPO) is beyond the limits of the host.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
"""

EXAMPLES = r"""
- name: Drill
  aapanel.pipeline.backup_drill:
  register: drill

- name: Say how long it took
  ansible.builtin.debug:
    msg: "RTO {{ drill.report.rto }} s, RPO {{ drill.report.rpo }} s"
"""

RETURN = r"""
report:
  description: The report, as it was signed and written down. Null in check mode.
  returned: success, and where the drill did not pass
  type: dict
  sample:
    began: "2026-11-22T04:40:00Z"
    rto: 9
    rpo: 612
    files_age: 5400
    health: ""
    problem: ""
    sources: {database: {backup: backup_20261122T042000Z_000042, age: 612, rows: 1043, tables: 7, seconds: 2}}
status:
  description: What panelctl would exit with.
  returned: failure
  type: int
  sample: 1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, WAIT, backups_of
from ansible_collections.aapanel.pipeline.plugins.module_utils._host.exit_codes import FAILED


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**CONFIG, **WAIT}, supports_check_mode=True)
    with backups_of(module) as backups:
        if module.check_mode:
            backups.plan()
            module.exit_json(changed=True, report=None)
        report = backups.drill()
        if report.problem:
            module.fail_json(msg=f"the drill failed: {report.problem}", report=asdict(report), status=FAILED)
        module.exit_json(changed=True, report=asdict(report))


if __name__ == "__main__":
    main()
