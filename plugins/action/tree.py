# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "aapanel.pipeline.tree"


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible is not typed
    """Reads the folders on the controller, and passes their files to the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the files of the folders."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        files = dict(args.get("files") or {})
        for target, source in (args.get("folders") or {}).items():
            root = Path(self._loader.path_dwim(str(source)))
            if not root.is_dir():
                raise AnsibleActionFail(f"folders: {root} is not a folder on the controller; correct the path.")
            for path in sorted(root.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    files[f"{target}/{path.relative_to(root).as_posix()}"] = path.read_text(encoding="utf-8")
        args["files"] = files
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        # The invocation contains all texts, which would flood the output of -v. The diff shows the changes.
        result.pop("invocation", None)
        return result
