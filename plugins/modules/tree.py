#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Write many small text files and folders in one task
version_added: 0.1.0
description:
  - Writes files with the text in the task, and the files of folders on the controller.
  - A loop over M(ansible.builtin.copy) needs two round trips per file; this module needs one for all files.
  - Each file is replaced by a rename, so readers see either the old or the new one.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
options:
  files:
    description:
      - Maps an absolute path on the target to the text of the file, or to a dictionary with C(text) and C(mode).
    type: dict
    default: {}
  folders:
    description:
      - Maps the absolute path of a folder on the target to the folder on the controller with its content. Other files
        are removed from the folder on the target, except compiled Python files.
    type: dict
    default: {}
  directories:
    description:
      - Maps the absolute path of a folder on the target to a dictionary with C(mode), C(owner) and C(group), each
        optional. Folders are created before the files. Their content is not changed.
    type: dict
    default: {}
  mode:
    description:
      - Mode of files without their own mode.
    type: str
    default: "0644"
  folder_mode:
    description:
      - Mode of created folders, and of O(directories) without their own mode.
    type: str
    default: "0755"
  owner:
    description:
      - Owner of the files and of created folders. By default it is not changed.
    type: str
  group:
    description:
      - Group of the files and of created folders. By default it is not changed.
    type: str
  hidden:
    description:
      - Whether to hide the text in the diff, because it contains a secret.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Write two units
  aapanel.pipeline.tree:
    files:
      /etc/systemd/system/hello.service: "{{ lookup('ansible.builtin.template', 'hello.service.j2') }}"
      /etc/systemd/system/hello.timer: "{{ lookup('ansible.builtin.template', 'hello.timer.j2') }}"
    owner: root
    group: root

- name: Create two folders, and a file in one of them
  aapanel.pipeline.tree:
    directories:
      /var/lib/hello: {mode: "0750", owner: www-data, group: www-data}
      /etc/hello: {}
    files:
      /etc/hello/greeting: "Hello\n"

- name: Copy a folder of error pages, and remove other files from it
  aapanel.pipeline.tree:
    folders:
      /usr/share/aapanel/errors: "{{ role_path }}/files/errors"
"""

RETURN = r"""
changed_files:
  description: The files and directories that were written, created or removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/hello.timer]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._tree import files as tree


def to_files(params: dict[str, Any]) -> list[tree.File]:
    """Convert the arguments to files.

    :raises TreeError: an argument is invalid.
    """
    found = []
    for name, given in params["files"].items():
        path = Path(name)
        if not path.is_absolute():
            raise tree.TreeError(f"files: {name} must be an absolute path.")
        entry = given if isinstance(given, dict) else {"text": given}
        if not isinstance(entry.get("text"), str) or set(entry) - {"text", "mode"}:
            raise tree.TreeError(f"files: {name} must be a text, or a dictionary with text and mode.")
        found.append(tree.File(path, entry["text"], _mode("files", entry.get("mode") or params["mode"])))
    return found


def to_folders(params: dict[str, Any], *, tolerant: bool) -> list[tree.Folder]:
    """Convert the arguments to folders.

    :param tolerant: accept missing owners (check mode).
    :raises TreeError: an argument is invalid.
    """
    found = []
    for name, given in params["directories"].items():
        path, entry = Path(name), given or {}
        if not path.is_absolute():
            raise tree.TreeError(f"directories: {name} must be an absolute path.")
        if not isinstance(entry, dict) or set(entry) - {"mode", "owner", "group"}:
            raise tree.TreeError(f"directories: {name} must be a dictionary with mode, owner and group.")
        owner = tree.find_owner(
            entry.get("owner") or params["owner"], entry.get("group") or params["group"], tolerant=tolerant
        )
        found.append(tree.Folder(path, _mode("directories", entry.get("mode") or params["folder_mode"]), owner))
    return found


def _mode(option: str, given: str) -> int:
    try:
        return int(given, 8)
    except (TypeError, ValueError):
        raise tree.TreeError(f'{option}: mode {given!r} must be octal digits in quotes, "0644".') from None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "default": {}},
            # The action plugin has added their files to `files`; here they name the folders with exclusive content.
            "folders": {"type": "dict", "default": {}},
            "directories": {"type": "dict", "default": {}},
            "mode": {"type": "str", "default": "0644"},
            "folder_mode": {"type": "str", "default": "0755"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "hidden": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        files, folders = to_files(params), to_folders(params, tolerant=module.check_mode)
        owner = tree.find_owner(params["owner"], params["group"], tolerant=module.check_mode)
        folder_mode = _mode("folder_mode", params["folder_mode"])
        to_make = tree.plan_folders(folders)
        to_write = tree.plan(files, [Path(name) for name in params["folders"]], owner)
        if not module.check_mode:
            tree.make_folders(folders, to_make, (owner, folder_mode))
            tree.apply(files, to_write, owner, folder_mode)
    except tree.TreeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be written: {error.strerror}. Check its permissions and disk.")
    changes = [*to_make, *to_write]
    module.exit_json(
        changed=bool(changes),
        changed_files=[str(change.path) for change in changes],
        diff=tree.diff(to_make) + tree.diff(to_write, hidden=params["hidden"]),
    )


if __name__ == "__main__":
    main()
