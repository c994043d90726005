#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: See which backups there are, and whether they are what they should be
version_added: 0.1.0
description:
  - Tells what C(panelctl backup list) and C(panelctl backup status) tell. Reads manifests, not archives; a backup is
    C(broken) where its archive is gone or of another length, or whoever read it has found that it is another one.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
  - aapanel.pipeline.backups
"""

EXAMPLES = r"""
- name: Which backups are there?
  aapanel.pipeline.backup_info:
  register: found

- name: Stop where something is wrong with them
  ansible.builtin.assert:
    that: found.status.problems | length == 0
    fail_msg: "{{ found.status.problems | join('\n') }}"
"""

RETURN = r"""
backups:
  description:
    - All that are there or should be, oldest first. Their C(state) is C(good), C(broken), C(missing), C(replaced),
      C(replayed), C(forged), or C(old) for those of the first format.
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
    - The newest backup of each source and its age in seconds, the last runs, the last drill, and problems. On failure
      a number, which is what panelctl would exit with.
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
