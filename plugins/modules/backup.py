#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Create a backup, unless a recent one exists
version_added: 0.1.0
description:
  - Creates a backup of a backup set, like C(panelctl backup create). If one source fails, no backup is created.
  - Database backups are point-in-time consistent and do not block writers.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
options:
  set:
    description:
      - Name of the backup set. The role C(backups) configures V(databases) and V(full).
    type: str
    default: full
  max_age:
    description:
      - Age in seconds. If a younger good backup of the set exists, the module does nothing. V(0) always creates one.
      - A backup from the future, which a wrong clock has created, does not count.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Create a full backup now
  aapanel.pipeline.backup:

- name: Ensure a backup of the databases that is less than ten minutes old
  aapanel.pipeline.backup:
    set: databases
    max_age: 600
"""

RETURN = r"""
backup:
  description: The summary of the new or recent backup. Null in check mode if a backup would be created.
  returned: success
  type: dict
  sample:
    name: backup_20261122T213000Z_000042
    set: databases
    began: "2026-11-22T21:30:00Z"
    size: 183204
    members: 1
    partial: false
    warnings: []
    sources: [{kind: postgresql, name: database, member: postgresql/database.dump, rows: {public.accounts: 100}}]
status:
  description: The exit status that C(panelctl backup) has for this error.
  returned: failure
  type: int
  sample: 5
"""

from dataclasses import asdict
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive.manifest import Summary
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, WAIT, backup_service


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONFIG,
            **WAIT,
            "set": {"type": "str", "default": names.FULL},
            "max_age": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    set_name = module.params["set"]
    with backup_service(module) as service:
        # Reject an unknown set first, also in check mode.
        service.settings.sources_of(set_name)
        newest = service.newest(set_name)
        if newest is not None and _is_recent(newest, module.params["max_age"]):
            module.exit_json(changed=False, backup=asdict(newest))
        created = None if module.check_mode else service.create(set_name)
        for warning in created.warnings if created else ():
            module.warn(warning)
        diff = {"before": _line(newest), "after": _line(created) if created else "newest: created now\n"}
        module.exit_json(changed=True, backup=asdict(created) if created else None, diff=diff)


def _is_recent(summary: Summary, max_age: int) -> bool:
    age = (datetime.now(timezone.utc) - names.parse_timestamp(summary.began)).total_seconds()
    # A few seconds in the future are tolerated. With a max_age of 0 even those do not make a backup recent.
    return max_age > 0 and age < max_age and not names.is_in_future(age)


def _line(summary: Summary | None) -> str:
    return f"newest: {summary.name}\n" if summary else "newest: none\n"


if __name__ == "__main__":
    main()
