#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill
short_description: Prove that the newest backups can be restored
version_added: 0.1.0
description:
  - Restores the newest backups beside the panel, from archive and key alone. The panel keeps serving.
  - Compares rows and canaries, starts the live release on the restored data, and checks its health.
  - Fails if the recovery time (RTO) or the age of the data (RPO) reaches the limits of the host.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
"""

EXAMPLES = r"""
- name: Run a drill
  aapanel.pipeline.backup_drill:
  register: drill

- name: Show the recovery time and the age of the data
  ansible.builtin.debug:
    msg: "RTO {{ drill.report.rto }} s, RPO {{ drill.report.rpo }} s"
"""

RETURN = r"""
report:
  description: The signed report of the drill. Null in check mode.
  returned: success, and when the drill failed
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
  description: The exit status that C(panelctl backup) has for this error.
  returned: failure
  type: int
  sample: 1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, WAIT, backup_service
from ansible_collections.aapanel.pipeline.plugins.module_utils._host.exit_codes import FAILED


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**CONFIG, **WAIT}, supports_check_mode=True)
    with backup_service(module) as service:
        if module.check_mode:
            service.plan()
            module.exit_json(changed=True, report=None)
        report = service.drill()
        if report.problem:
            module.fail_json(msg=f"the drill failed: {report.problem}", report=asdict(report), status=FAILED)
        module.exit_json(changed=True, report=asdict(report))


if __name__ == "__main__":
    main()
