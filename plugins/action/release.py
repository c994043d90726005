# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812 - Ansible's own name for it
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import source as sources
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.command import split_credentials
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError

MODULE = "aapanel.pipeline.release"


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible is not typed
    """Sends directories of the controller to the target if their release is not built yet.

    The first run of the module gets only their digests. If it reports that it needs the content, this plugin packs and
    sends that, and runs the module again.
    """

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, twice if it needs the content of directories."""
        super().run(tmp, task_vars)
        try:
            args, folders = self._read_folders(dict(self._task.args))
            result = self._ask(args, folders, task_vars)
            needs = result.pop("needs", [])
            if needs:
                for name in needs:
                    folders[name].send(self)
                result = self._ask(args, folders, task_vars)
        except ReleaseError as exc:
            raise AnsibleActionFail(exc.message) from exc
        return result

    def _ask(
        self, args: dict[str, Any], folders: dict[str, _Folder], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        trees = {name: folder.as_argument() for name, folder in folders.items()}
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={**args, "controller_trees": trees}, task_vars=task_vars
        )
        return result

    def _read_folders(self, args: dict[str, Any]) -> tuple[dict[str, Any], dict[str, _Folder]]:
        """Return the arguments for the module, and the directories of the controller in them.

        Checks only what is needed to read the directories; the module checks the rest.

        :raises ReleaseError: a directory is missing or cannot be released.
        """
        folders = {}
        given = args.get("source")
        if isinstance(given, str):
            raise ReleaseError(f"source: {split_credentials(given)[0]!r} must be a dictionary; set source.location.")
        if isinstance(given, Mapping) and isinstance(given.get("location"), str):
            kind = sources.classify(str(given.get("type") or "auto"), given["location"])
            if kind == "path":
                sources.check(sources.Source(kind, given["location"], subdir=str(given.get("subdir") or "")))
                top = self._controller_folder(given["location"], "source.location")
                exclude = given.get("exclude") or []
                root = top / str(given.get("subdir") or "")
                folders["source"] = _Folder(
                    "source",
                    root,
                    (*tree.DEFAULT_EXCLUDE, *([exclude] if isinstance(exclude, str) else exclude)),
                    here=self._target_reads_controller_files(),
                )
                args["source"] = {**given, "type": kind, "location": os.fspath(top)}
                args["label"] = args.get("label") or sources.label_of(root)
        if args.get("runtime"):
            root = self._controller_folder(str(args["runtime"]), "runtime")
            folders["runtime"] = _Folder(
                "runtime", root, tree.DEFAULT_EXCLUDE, here=self._target_reads_controller_files()
            )
            args["runtime"] = os.fspath(root)
        return args, folders

    def _controller_folder(self, path: str, option: str) -> Path:
        """Return a directory of the controller; relative paths start at the playbook's directory.

        :raises ReleaseError: the directory does not exist.
        """
        root = Path(self._loader.path_dwim(path))
        if not root.is_dir():
            other = ", or set source.type if it is a repository or an archive" if option == "source.location" else ""
            raise ReleaseError(f"{option}: {root} is not a directory on the controller; correct the path{other}.")
        return root

    def _target_reads_controller_files(self) -> bool:
        """Return whether the module on the target can read the files of the controller."""
        if self._connection.transport != "local":
            return False
        become = self._connection.become
        return become is None or become.get_option("become_user", playcontext=self._play_context) in (None, "root")


class _Folder:
    """A directory of the controller, and the location of its content on the target.

    :param here: whether the target can read the directory itself.
    """

    def __init__(self, name: str, root: Path, exclude: tuple[str, ...], *, here: bool) -> None:
        self._name = name
        self._root = root
        self._exclude = exclude
        self._argument = {"digest": tree.digest(root, exclude)}
        if here:
            self._argument["path"] = os.fspath(root)

    def as_argument(self) -> dict[str, str]:
        """Return the module's argument for this directory."""
        return self._argument

    def send(self, action: ActionModule) -> None:
        """Pack the directory and send it to the task's temporary directory on the target.

        :raises ReleaseError: the directory cannot be read.
        """
        shell = action._connection._shell
        if shell.tmpdir is None:
            action._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, f"{self._name}.tar.gz")
        with tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP) as scratch:
            packed = Path(scratch) / f"{self._name}.tar.gz"
            tree.pack(self._root, packed, self._exclude)
            action._transfer_file(os.fspath(packed), remote)
        action._fixup_perms2((shell.tmpdir, remote))
        self._argument["archive"] = remote
