#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: List the backups and their status
version_added: 0.1.0
description:
  - Returns the results of C(panelctl backup list) and C(panelctl backup status).
  - Reads manifests, not archives. A backup is C(broken) if its archive is missing or has the wrong size, or if an
    earlier verification has failed.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
  - aapanel.pipeline.backups
"""

EXAMPLES = r"""
- name: List the backups
  aapanel.pipeline.backup_info:
  register: found

- name: Fail if the backups have a problem
  ansible.builtin.assert:
    that: found.status.problems | length == 0
    fail_msg: "{{ found.status.problems | join('\n') }}"
"""

RETURN = r"""
backups:
  description:
    - All backups that exist or should exist, oldest first.
    - The C(state) of a backup is C(good), C(broken), C(missing), C(replaced), C(replayed), C(forged), or C(old) if it
      has the first format.
  returned: success
  type: list
  elements: dict
  sample:
    - name: backup_20261122T213000Z_000042
      state: good
      problem: ""
      summary: {set: databases, began: "2026-11-22T21:30:00Z", size: 183204, partial: false}
status:
  description:
    - The newest backup of each source with its age in seconds, the last runs, the last drill, and problems.
    - On failure, a number instead, which is the exit status that C(panelctl backup) has for this error.
  returned: always
  type: dict
  sample:
    backups: 42
    size: 7694568
    sources: {database: {newest: backup_20261122T213000Z_000042, age: 610, partial: false}}
    drill: {result: passed, rto: 9, rpo: 612, files_age: 5400}
    problems: []
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.cli.render import plain
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, backup_service


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(CONFIG), supports_check_mode=True)
    with backup_service(module) as service:
        found = [plain(backup) for backup in service.all()]
        module.exit_json(changed=False, backups=found, status=asdict(service.status()))


if __name__ == "__main__":
    main()
