# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Write many small text files and folders in one operation."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 1 << 20  # limits what is read for a comparison and its diff
_BYTECODE_FOLDER = "__pycache__"


class TreeError(Exception):
    """A failure that the operator can fix; the module reports it with fail_json."""


@dataclass(frozen=True)
class File:
    """Desired content and mode of a file."""

    path: Path
    text: str
    mode: int


@dataclass(frozen=True)
class Owner:
    """Desired owner of files and folders; None keeps the current one, UNKNOWN is an account that does not exist yet."""

    uid: int | None = None
    gid: int | None = None

    def owns(self, status: os.stat_result) -> bool:
        """Return whether a file or folder has this owner."""
        return self.uid in (None, status.st_uid) and self.gid in (None, status.st_gid)


# In check mode on an empty host, an earlier task would have created the account.
UNKNOWN = -1


@dataclass(frozen=True)
class Folder:
    """Desired mode and owner of a folder; its content is not changed."""

    path: Path
    mode: int
    owner: Owner


@dataclass(frozen=True)
class Change:
    """A file or folder that differs from its desired state.

    :param after: desired text; None if the file must be removed.
    """

    path: Path
    before: str | None
    after: str | None
    before_mode: int | None
    after_mode: int | None


def find_owner(user: str | None, group: str | None, *, tolerant: bool = False) -> Owner:
    """Look up a user and a group by name; None keeps the current owner.

    :param tolerant: accept missing accounts, which an earlier task would have created (check mode).
    :raises TreeError: the user or the group does not exist.
    """
    try:
        uid = pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        uid = _unknown_account(f"owner: user {user} does not exist", tolerant)
    try:
        gid = grp.getgrnam(group).gr_gid if group else None
    except KeyError:
        gid = _unknown_account(f"group: group {group} does not exist", tolerant)
    return Owner(uid, gid)


def _unknown_account(problem: str, tolerant: bool) -> int:
    if tolerant:
        return UNKNOWN
    raise TreeError(f"{problem}; create it first, or use another.")


def plan_folders(folders: Sequence[Folder]) -> list[Change]:
    """Return the folders that must be changed, without changing them.

    :raises TreeError: a path is not a folder.
    """
    return [change for folder in folders if (change := _compare_folder(folder)) is not None]


def make_folders(folders: Sequence[Folder], changes: Sequence[Change], parents: tuple[Owner, int]) -> None:
    """Apply the changes, in the order of ``folders``.

    :param parents: owner and mode of missing parent folders.
    :raises OSError: a folder cannot be written.
    """
    changed = {change.path for change in changes}
    for folder in folders:
        if folder.path in changed:
            _make_folders(folder.path, *parents)
            with _open_folder(folder.path) as descriptor:
                _set_owner(descriptor, folder.owner)
                os.fchmod(descriptor, folder.mode)


def plan(files: Sequence[File], exclusive: Sequence[Path], owner: Owner) -> list[Change]:
    """Return the files that must be changed or removed, without changing them.

    :param exclusive: folders that must contain only ``files``; compiled Python files are ignored.
    :raises TreeError: a path is not a regular file.
    """
    changes = [change for file in files if (change := _compare(file, owner)) is not None]
    wanted = {file.path for file in files}
    for folder in exclusive:
        present = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
        surplus = (path for path in present if path not in wanted and _BYTECODE_FOLDER not in path.parts)
        changes.extend(Change(path, _read(path), None, None, None) for path in surplus)
    return changes


def apply(files: Sequence[File], changes: Sequence[Change], owner: Owner, folder_mode: int) -> None:
    """Apply the changes; each file is replaced by a rename, so readers see either the old or the new one.

    :param folder_mode: mode of missing parent folders.
    :raises OSError: a file cannot be written.
    """
    texts: Mapping[Path, File] = {file.path: file for file in files}
    for change in changes:
        file = texts.get(change.path)
        if file is None:
            change.path.unlink()
            continue
        _make_folders(change.path.parent, owner, folder_mode)
        temporary = change.path.with_name(f".{change.path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(file.text)
            _set_owner(stream.fileno(), owner)
            os.fchmod(stream.fileno(), file.mode)
        temporary.rename(change.path)


def diff(changes: Sequence[Change], *, hidden: bool = False) -> list[dict[str, str]]:
    """Return the changes as Ansible's diff, with one entry per file.

    :param hidden: whether to hide the text.
    """
    entries = []
    for change in changes:
        before, after = change.before or "", change.after or ""
        if hidden:
            before, after = ("" if text is None else "(hidden)\n" for text in (change.before, change.after))
        if change.before_mode not in (None, change.after_mode):
            before = f"mode {change.before_mode:04o}\n{before}"
            after = f"mode {change.after_mode:04o}\n{after}"
        header = str(change.path)
        entries.append({"before_header": header, "after_header": header, "before": before, "after": after})
    return entries


def _compare(file: File, owner: Owner) -> Change | None:
    try:
        status = file.path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Change(file.path, None, file.text, None, file.mode)
    if not stat.S_ISREG(status.st_mode):
        raise TreeError(f"{file.path} cannot be written: it is not a regular file. Move it away, then run again.")
    before, mode = _read(file.path), stat.S_IMODE(status.st_mode)
    if before == file.text and mode == file.mode and owner.owns(status):
        return None
    return Change(file.path, before, file.text, mode, file.mode)


def _compare_folder(folder: Folder) -> Change | None:
    after = _describe(folder.mode, folder.owner.uid, folder.owner.gid)
    try:
        status = folder.path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Change(folder.path, None, after, None, None)
    if stat.S_ISLNK(status.st_mode):
        # Follow the link: an administrator may have moved the folder to another disk.
        status = folder.path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise TreeError(
            f"{folder.path} cannot be created: it exists, but is not a folder. Move it away, then run again."
        )
    if stat.S_IMODE(status.st_mode) == folder.mode and folder.owner.owns(status):
        return None
    owner = (None if folder.owner.uid is None else status.st_uid, None if folder.owner.gid is None else status.st_gid)
    return Change(folder.path, _describe(stat.S_IMODE(status.st_mode), *owner), after, None, None)


def _describe(mode: int, uid: int | None, gid: int | None) -> str:
    owners = (("owner", uid), ("group", gid))
    described = (
        f", {what} {'not created yet' if number == UNKNOWN else number}"
        for what, number in owners
        if number is not None
    )
    return f"folder, mode {mode:04o}{''.join(described)}\n"


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_MAX_BYTES).decode("utf-8", "replace")


def _make_folders(folder: Path, owner: Owner, mode: int) -> None:
    for part in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o700)
            with _open_folder(part) as descriptor:
                _set_owner(descriptor, owner)
                os.fchmod(descriptor, mode)


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _set_owner(descriptor: int, owner: Owner) -> None:
    if owner != Owner():
        os.fchown(descriptor, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
