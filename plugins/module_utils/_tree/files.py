# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Many small text files, and folders, brought to what they should be in one go."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 1 << 20  # bytes; more is no small text file, and its diff nobody's to read
_MADE_BY_PYTHON = "__pycache__"


class TreeError(Exception):
    """Anything the operator can act on; the module turns it into fail_json."""


@dataclass(frozen=True)
class File:
    """What one file should be."""

    path: Path
    text: str
    mode: int


@dataclass(frozen=True)
class Owner:
    """Who should own files and folders; None leaves that as it is, and UNKNOWN is nobody's number yet."""

    uid: int | None = None
    gid: int | None = None

    def owns(self, status: os.stat_result) -> bool:
        """Tell whether something is owned like this."""
        return self.uid in (None, status.st_uid) and self.gid in (None, status.st_gid)


# In check mode on an empty host, a task before would have made that user.
UNKNOWN = -1


@dataclass(frozen=True)
class Folder:
    """What one folder should be; what it holds is left alone."""

    path: Path
    mode: int
    owner: Owner


@dataclass(frozen=True)
class Change:
    """One file or folder that is not what it should be. No *after* means that it goes."""

    path: Path
    before: str | None
    after: str | None
    before_mode: int | None
    after_mode: int | None


def find_owner(user: str | None, group: str | None, *, tolerant: bool = False) -> Owner:
    """Look a user and a group up by their names; None leaves that as it is.

    :param tolerant: whether somebody who is not there will be (check mode).
    :raises TreeError: there is no such user or group.
    """
    try:
        uid = pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        uid = _nobody(f"owner: there is no user {user}", tolerant)
    try:
        gid = grp.getgrnam(group).gr_gid if group else None
    except KeyError:
        gid = _nobody(f"group: there is no group {group}", tolerant)
    return Owner(uid, gid)


def _nobody(problem: str, tolerant: bool) -> int:
    if tolerant:
        return UNKNOWN
    raise TreeError(f"{problem}; make it first, or name another.")


def plan_folders(folders: Sequence[Folder]) -> list[Change]:
    """Compare, without touching anything.

    :raises TreeError: something that is no folder stands in the place of one.
    """
    return [change for folder in folders if (change := _compare_folder(folder)) is not None]


def make_folders(folders: Sequence[Folder], changes: Sequence[Change], on_the_way: tuple[Owner, int]) -> None:
    """Make the changes, in the order of *folders*.

    :param on_the_way: owner and mode of those that are made because others are in them.
    :raises OSError: names the folder.
    """
    changed = {change.path for change in changes}
    for folder in folders:
        if folder.path in changed:
            _make_folders(folder.path, *on_the_way)
            with _opened(folder.path) as descriptor:
                _give(descriptor, folder.owner)
                os.fchmod(descriptor, folder.mode)


def plan(files: Sequence[File], exclusive: Sequence[Path], owner: Owner) -> list[Change]:
    """Compare, without touching anything.

    :param exclusive: folders that shall hold nothing but *files*; what Python compiled there does not count.
    :raises TreeError: something that is no text file stands in the place of one.
    """
    changes = [change for file in files if (change := _compare(file, owner)) is not None]
    wanted = {file.path for file in files}
    for folder in exclusive:
        present = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
        surplus = (path for path in present if path not in wanted and _MADE_BY_PYTHON not in path.parts)
        changes.extend(Change(path, _read(path), None, None, None) for path in surplus)
    return changes


def carry_out(files: Sequence[File], changes: Sequence[Change], owner: Owner, folder_mode: int) -> None:
    """Make the changes: each file appears by one rename, so that whoever reads it sees the old or the new one.

    :param folder_mode: of folders that are made on the way.
    :raises OSError: names the file.
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
            _give(stream.fileno(), owner)
            os.fchmod(stream.fileno(), file.mode)
        temporary.rename(change.path)


def diff(changes: Sequence[Change], *, hidden: bool = False) -> list[dict[str, str]]:
    """Say what changes as Ansible shows it, a file an entry.

    :param hidden: whether the text is nobody's to read.
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
        raise TreeError(f"{file.path} is no file: move it away, then run again")
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
        # An admin may have put it on another disk.
        status = folder.path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise TreeError(f"{folder.path} is no folder: move it away, then run again")
    if stat.S_IMODE(status.st_mode) == folder.mode and folder.owner.owns(status):
        return None
    told = (None if folder.owner.uid is None else status.st_uid, None if folder.owner.gid is None else status.st_gid)
    return Change(folder.path, _describe(stat.S_IMODE(status.st_mode), *told), after, None, None)


def _describe(mode: int, uid: int | None, gid: int | None) -> str:
    owners = (("owner", uid), ("group", gid))
    told = (
        f", {what} {'yet to be made' if number == UNKNOWN else number}" for what, number in owners if number is not None
    )
    return f"folder, mode {mode:04o}{''.join(told)}\n"


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_LARGEST).decode("utf-8", "replace")


def _make_folders(folder: Path, owner: Owner, mode: int) -> None:
    for part in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o700)
            with _opened(part) as descriptor:
                _give(descriptor, owner)
                os.fchmod(descriptor, mode)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give(descriptor: int, owner: Owner) -> None:
    if owner != Owner():
        os.fchown(descriptor, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
