# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Link persistent paths of a release into the shared directory, and seed them."""

from __future__ import annotations

import grp
import os
import posixpath
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._host import durable
from .errors import ReleaseError
from .store import remove_tree
from .tree import relative_path

_SEEDING = ".seeding"


@dataclass(frozen=True)
class Owner:
    """User and group of the shared paths; -1 keeps the caller's."""

    uid: int = -1
    gid: int = -1


def find_owner(owner: str, group: str) -> Owner:
    """Look up a user and a group, by name or number; the group defaults to the user's primary group.

    :raises ReleaseError: there is no such user or group.
    """
    uid = gid = -1
    if owner:
        account = _account(owner)
        if account:
            uid, gid = account.pw_uid, account.pw_gid
        elif owner.isdigit():
            uid = int(owner)
        else:
            raise ReleaseError(f"owner: user {owner!r} does not exist on this host; create it first.")
    if group:
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ReleaseError(f"group: group {group!r} does not exist on this host; create it first.") from None
    return Owner(uid, gid)


def find_run_identity(owner: str) -> tuple[int, int, list[int]] | None:
    """Return the IDs to run a command as a user; None if this process cannot change its user, or need not."""
    account = _account(owner) if owner else None
    if os.geteuid() != 0 or account is None or account.pw_uid == 0:
        return None
    return account.pw_uid, account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)


def _account(owner: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(owner)) if owner.isdigit() else pwd.getpwnam(owner)
    except KeyError:
        return None


def check_paths(values: Sequence[str]) -> list[str]:
    """Return persistent paths in normalized form; a trailing slash (a directory) is kept.

    :raises ReleaseError: a path leaves the source, or lies inside another one.
    """
    plain: dict[str, str] = {}
    for value in values:
        path = relative_path(value, "persistent_paths")
        plain[path] = path + ("/" if value.endswith("/") else "")
    for path in plain:
        outer = posixpath.dirname(path)
        while outer:
            if outer in plain:
                raise ReleaseError(f"persistent_paths: {path} is already covered by {outer}; remove {path}.")
            outer = posixpath.dirname(outer)
    return list(plain.values())


def missing(shared_dir: Path, paths: Sequence[str]) -> list[str]:
    """Return the persistent paths that have no shared file or directory yet."""
    return [path for path in paths if not os.path.lexists(shared_dir / path.rstrip("/"))]


def link(app: Path, seed: Path, shared_dir: Path, paths: Sequence[str]) -> None:
    """Replace persistent paths of a new release by links to the shared ones, and move their content to its seed.

    :raises ReleaseError: a parent of a path is a link or a file, or a missing path may be a file or a directory.
    """
    seed.mkdir(0o755)
    for value in paths:
        path = value.rstrip("/")
        original, seeded = app / path, seed / path
        _check_parent(app, path)
        seeded.parent.mkdir(parents=True, exist_ok=True)
        if original.is_symlink():
            raise ReleaseError(f"persistent_paths: {path} is a symbolic link in the source; use its target instead.")
        if original.exists():
            original.rename(seeded)
        elif not os.path.lexists(shared_dir / path):
            # Refuse to guess: a shared path is never replaced, so a wrong guess would persist.
            if "." in posixpath.basename(path) and not value.endswith("/"):
                raise ReleaseError(
                    f"persistent_paths: {path} is neither in the source nor in {shared_dir}. Write {path}/ for an "
                    f"empty directory, or create the file {shared_dir / path}."
                )
            seeded.mkdir()
        original.parent.mkdir(parents=True, exist_ok=True)
        original.symlink_to(shared_dir / path)


def _check_parent(app: Path, path: str) -> None:
    parent = app
    for part in path.split("/")[:-1]:
        parent /= part
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise ReleaseError(
                f"persistent_paths: {path} cannot be shared: {parent.relative_to(app)} is not a directory in the "
                "source. Correct the path."
            )


def seed_shared(shared_dir: Path, seed: Path, paths: Sequence[str], owner: Owner, mode: int) -> None:
    """Create missing shared paths with the content of the release's seed.

    Existing paths stay unchanged. The app owns parts of the shared directory and may attack root. So parent
    directories are opened without following links, and the copy is made in a directory that only the caller can
    enter, then gets its owner, and is renamed into place.

    :param mode: mode of directories; files get it without the execute bits.
    :raises ReleaseError: a parent of a path is not a real directory, or cannot be written.
    """
    shared_dir.mkdir(0o755, parents=True, exist_ok=True)
    for value in missing(shared_dir, paths):
        path = value.rstrip("/")
        parent = _open_parent(shared_dir, path)
        try:
            _seed_one(parent, posixpath.basename(path), seed / path, owner, mode)
        finally:
            os.close(parent)


def _open_parent(shared_dir: Path, path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    current = os.open(shared_dir, flags)
    walked = shared_dir
    for part in path.split("/")[:-1]:
        walked /= part
        try:
            try:
                following = os.open(part, flags | os.O_NOFOLLOW, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                following = os.open(part, flags | os.O_NOFOLLOW, dir_fd=current)
        except OSError as exc:
            raise ReleaseError(
                f"{walked} cannot be opened as a directory: {exc.strerror}. Replace the link or file by a directory."
            ) from exc
        finally:
            os.close(current)
        current = following
    return current


def _seed_one(parent: int, name: str, source: Path, owner: Owner, mode: int) -> None:
    temporary = f".{name}{_SEEDING}"
    # The path through /proc refers to the open directory, even if it was renamed meanwhile.
    here = Path(f"/proc/self/fd/{parent}")
    remove_tree(here / temporary)
    if source.is_dir():
        os.mkdir(temporary, 0o700, dir_fd=parent)
        top = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if os.fstat(top).st_uid != os.geteuid():
                raise ReleaseError(
                    f"{temporary} was replaced by another user during its creation. Stop that process, then run again."
                )
            _copy_below(source, Path(f"/proc/self/fd/{top}"), owner, mode)
            os.fchmod(top, mode)
            os.fchown(top, owner.uid, owner.gid)
            os.fsync(top)
        finally:
            os.close(top)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            source.open("rb") as content,
            os.fdopen(os.open(temporary, flags, 0o600, dir_fd=parent), "wb") as handle,
        ):
            shutil.copyfileobj(content, handle)
            handle.flush()
            os.fchmod(handle.fileno(), mode & 0o666)
            os.fchown(handle.fileno(), owner.uid, owner.gid)
            os.fsync(handle.fileno())
    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


def _copy_below(source: Path, destination: Path, owner: Owner, mode: int) -> None:
    for item in sorted(source.iterdir()):
        copy = destination / item.name
        if item.is_symlink():
            copy.symlink_to(item.readlink())
        elif item.is_dir():
            copy.mkdir(0o700)
            _copy_below(item, copy, owner, mode)
            copy.chmod(mode)
            durable.sync(copy)
        else:
            with item.open("rb") as content, copy.open("xb") as handle:
                shutil.copyfileobj(content, handle)
                handle.flush()
                os.fsync(handle.fileno())
            executable = mode & 0o111 if item.stat().st_mode & stat.S_IXUSR else 0
            copy.chmod(mode & 0o666 | executable)
        os.chown(copy, owner.uid, owner.gid, follow_symlinks=False)
