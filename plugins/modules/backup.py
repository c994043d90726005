#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Make a backup, unless there is a young one
version_added: 0.1.0
description:
  - Backs up a set of sources of the host, all of it or nothing, as C(panelctl backup create) does.
  - Databases are as they are in one moment, while everybody writes.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
options:
  set:
    description:
      - What to back up; the role C(backups) knows V(databases) and V(full).
    type: str
    default: full
  max_age:
    description:
      - Seconds. A good backup of the set that is younger is enough, and nothing is done. V(0) always makes one.
      - One from the future, which a wrong clock has made, is not young.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Back up what there is, now
  aapanel.pipeline.backup:

- name: Have a backup of the databases that is no older than ten minutes
  aapanel.pipeline.backup:
    set: databases
    max_age: 600
"""

RETURN = r"""
backup:
  description: The summary of the backup that is there now; null in check mode where one would be made.
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
  description: What panelctl would exit with.
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
        # Named wrongly, it is said before anything else.
        service.settings.sources_of(set_name)
        newest = service.newest(set_name)
        if newest is not None and _is_young(newest, module.params["max_age"]):
            module.exit_json(changed=False, backup=asdict(newest))
        made = None if module.check_mode else service.create(set_name)
        for warning in made.warnings if made else ():
            module.warn(warning)
        diff = {"before": _line(newest), "after": _line(made) if made else "newest: one that is made now\n"}
        module.exit_json(changed=True, backup=asdict(made) if made else None, diff=diff)


def _is_young(summary: Summary, max_age: int) -> bool:
    age = (datetime.now(timezone.utc) - names.parse_timestamp(summary.began)).total_seconds()
    # Some seconds ahead are none, but still no reason to make none where any age is too old.
    return max_age > 0 and age < max_age and not names.is_in_future(age)


def _line(summary: Summary | None) -> str:
    return f"newest: {summary.name}\n" if summary else "newest: none\n"


if __name__ == "__main__":
    main()
