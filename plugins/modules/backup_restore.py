#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Bring backups back to where they came from, or to a folder
version_added: 0.1.0
description:
  - Verifies first. Databases are loaded beside the present and compared with what was counted when they were backed up;
    a snapshot of the present is taken; then they change places while the panel stands still.
  - Whatever fails, or where the panel is not healthy on what was restored, the present is put back.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
  - aapanel.pipeline.backups
  - aapanel.pipeline.backups.wait
options:
  name:
    description:
      - Which one. Empty for the newest one of each source.
    type: str
    default: ""
  only:
    description:
      - Names of the sources that are brought back. All, where there are none.
    type: list
    elements: str
    default: []
  to:
    description:
      - A folder that is not there yet. All is extracted there, also what cannot be brought back in place, and the panel
        and its data are left alone. Where the folder is there already, nothing is done.
    type: path
  snapshot:
    description:
      - Whether to back up first what there is. V(false) for a present that is broken.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Bring the newest backups back
  aapanel.pipeline.backup_restore:

- name: Bring one table's worth of yesterday where somebody can look at it
  aapanel.pipeline.backup_restore:
    name: backup_20261121T213000Z_000012
    only: [database]
    to: /root/yesterday
"""

RETURN = r"""
sources:
  description: Which backup each source came from, or would in check mode.
  returned: success
  type: dict
  sample: {database: backup_20261122T213000Z_000042, data: backup_20261122T031000Z_000009}
snapshot:
  description: The backup of what there was before; empty where there was none, or none was wanted.
  returned: success
  type: str
  sample: backup_20261122T214500Z_000043
partial:
  description:
    - Whether something is missing in what was brought back; the warnings say what. Null in check mode, and where
      nothing was done.
  returned: success
  type: bool
  sample: false
status:
  description: What panelctl would exit with.
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
            after = "".join(f"{to}: {source} of {name}\n" for source, name in sources.items())
        else:
            wanted = service.plan(params["name"], params["only"])
            sources = {origin.name: name for name, group in wanted.items() for origin in group}
            done = None if module.check_mode else service.restore(wanted, snapshot=params["snapshot"])
            before = "".join(f"{source}: the present\n" for source in sources)
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
