#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Restore backups in place, or to a folder
version_added: 0.1.0
description:
  - Verifies the backups first. Then loads the databases beside the live data, and compares their rows with those that
    were counted for the backup.
  - Stops the panel, creates a snapshot, and swaps the restored data with the live data.
  - Rolls back if anything fails, or if the panel is not healthy on the restored data.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
options:
  name:
    description:
      - Name of the backup. Empty for the newest one of each source.
    type: str
    default: ""
  only:
    description:
      - Names of the sources to restore. Empty for all.
    type: list
    elements: str
    default: []
  to:
    description:
      - A new folder to extract to, instead of restoring in place. The panel and its data stay as they are.
      - Also extracts sources that cannot be restored in place.
      - If the folder exists, the module does nothing.
    type: path
  snapshot:
    description:
      - Whether to back up the live data first. Set it to V(false) if the live data cannot be backed up.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Restore the newest backups in place
  aapanel.pipeline.backup_restore:

- name: Extract yesterday's database to a folder
  aapanel.pipeline.backup_restore:
    name: backup_20261121T213000Z_000012
    only: [database]
    to: /root/yesterday
"""

RETURN = r"""
sources:
  description: The backup that each source was restored from; in check mode, would be restored from.
  returned: success
  type: dict
  sample: {database: backup_20261122T213000Z_000042, data: backup_20261122T031000Z_000009}
snapshot:
  description: The backup of the replaced data; empty if there was no data, or no snapshot was requested.
  returned: success
  type: str
  sample: backup_20261122T214500Z_000043
partial:
  description:
    - Whether the restored data is incomplete; the warnings tell what is missing.
    - Null in check mode, and if nothing was done.
  returned: success
  type: bool
  sample: false
status:
  description: The exit status that C(panelctl backup) has for this error.
  returned: failure
  type: int
  sample: 4
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup_module import CONFIG, WAIT, backup_service


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONFIG,
            **WAIT,
            "name": {"type": "str", "default": ""},
            "only": {"type": "list", "elements": "str", "default": []},
            "to": {"type": "path"},
            "snapshot": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    with backup_service(module) as service:
        if params["to"]:
            to = Path(params["to"])
            if to.exists():
                module.exit_json(changed=False, sources={}, snapshot="", partial=None)
            if module.check_mode:
                done, members = None, service.select_members(params["name"], params["only"])
                sources = {source: name for name, found in members.items() for source in found}
            else:
                done = service.restore_result(service.extract(params["name"], to, params["only"]))
                sources = done.sources
            before = f"{to}: absent\n"
            after = "".join(f"{to}: {source} from {name}\n" for source, name in sources.items())
        else:
            plan = service.plan(params["name"], params["only"])
            sources = {source.name: name for name, group in plan.items() for source in group}
            done = None if module.check_mode else service.restore(plan, snapshot=params["snapshot"])
            before = "".join(f"{source}: live data\n" for source in sources)
            after = "".join(f"{source}: {name}\n" for source, name in sources.items())
        for warning in done.warnings if done else ():
            module.warn(warning)
        module.exit_json(
            changed=True,
            sources=sources,
            snapshot=done.snapshot if done else "",
            partial=done.partial if done else None,
            diff={"before": before, "after": after},
        )


if __name__ == "__main__":
    main()
