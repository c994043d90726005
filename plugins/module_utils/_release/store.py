# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The releases of an app on disk, and the build lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._host import durable
from .errors import ReleaseError

MANIFEST = "release.json"
_PARTIAL = ".partial"
_REMOVED = ".removed"
_POLL = 0.1


class Store:
    """The releases of one app below its base directory.

    A directory with a final name is a complete release: it is renamed to that after all of it is on disk. Names of
    releases that are being built or removed begin with a dot.
    """

    def __init__(self, base_dir: Path) -> None:
        self.base_dir = base_dir
        self.releases = base_dir / "releases"
        self.cache = base_dir / "cache"
        self._wheels = self.cache / "wheels"
        self._lock_file = base_dir / ".build.lock"

    def path(self, release_id: str) -> Path:
        """Return the directory of a release."""
        return self.releases / release_id

    def partial(self, release_id: str) -> Path:
        """Return the directory in which a release is built."""
        return self.releases / f".{release_id}{_PARTIAL}"

    def log(self, release_id: str) -> Path:
        """Return the log file of a release's latest build."""
        return self.cache / f"build-{release_id}.log"

    def read(self, release_id: str) -> dict[str, Any] | None:
        """Return the manifest of a complete release, or None if there is no such release."""
        try:
            content = json.loads((self.path(release_id) / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and content.get("id") == release_id else None

    def complete(self) -> list[str]:
        """Return the IDs of all complete releases, newest first."""
        found = []
        for path in _listing(self.releases):
            manifest = None if path.name.startswith(".") else self.read(path.name)
            if manifest:
                found.append((str(manifest.get("created", "")), path.name))
        return [name for _created, name in sorted(found, reverse=True)]

    def leftovers(self, *, locked: bool = False) -> list[str]:
        """Return the names of directories that interrupted builds and removals left; empty while a build runs.

        :param locked: whether the caller holds the lock, so that no other build runs.
        """
        if not locked and self._is_locked():
            return []
        names = (path.name for path in _listing(self.releases))
        return sorted(name for name in names if name.startswith(".") and name.endswith((_PARTIAL, _REMOVED)))

    def in_slots(self) -> set[str]:
        """Return the IDs of releases that slots link to.

        An entry of ``slots`` is a link to a release, or a folder that contains such a link named ``release``.
        """
        found = set()
        root = os.path.realpath(self.releases)
        slots = _listing(self.base_dir / "slots")
        for link in [*slots, *(slot / "release" for slot in slots)]:
            target = os.path.realpath(link)
            if target.startswith(root + os.sep):
                found.add(Path(target).relative_to(root).parts[0])
        return found

    def remove(self, name: str) -> None:
        """Remove a release or a leftover; renames a release first, so that a partly removed one is never used."""
        path = self.releases / name
        if not name.startswith("."):
            hidden = self.releases / f".{name}{_REMOVED}"
            remove_tree(hidden)
            path.rename(hidden)
            durable.sync(self.releases)
            path = hidden
        remove_tree(path)

    def publish(self, release_id: str) -> None:
        """Rename a finished build to its final name, and flush that to disk.

        :raises ReleaseError: an incomplete release that a slot uses has that name.
        """
        final = self.path(release_id)
        if os.path.lexists(final):
            if release_id in self.in_slots():
                raise ReleaseError(
                    f"{final} cannot be replaced: it is incomplete, but a slot uses it. Stop that slot and remove its "
                    "link."
                )
            self.remove(release_id)
        self.partial(release_id).rename(final)
        durable.sync(self.releases)

    def wheel(self, digest: str) -> Path | None:
        """Return the cached wheel of the runtime whose sources have this digest, or None."""
        return next((path for path in _listing(self._wheels / digest) if path.suffix == ".whl"), None)

    def keep_wheel(self, digest: str, wheel: Path) -> Path:
        """Move the runtime's wheel into the cache, replace older ones, and flush to disk; returns its path."""
        remove_tree(self._wheels)
        kept = self._wheels / digest / wheel.name
        kept.parent.mkdir(parents=True)
        with wheel.open("rb") as handle:
            os.fsync(handle.fileno())
        wheel.rename(kept)
        durable.sync(kept.parent)
        return kept

    def remove_logs(self, keep: Collection[str]) -> None:
        """Remove the build logs of removed releases."""
        kept = {self.log(name) for name in keep}
        for path in _listing(self.cache):
            if path.name.startswith("build-") and path.suffix == ".log" and path not in kept:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, timeout: float) -> Iterator[int]:
        """Hold the build lock; yields its descriptor, for commands to inherit.

        :param timeout: seconds to wait for another build.
        :raises ReleaseError: another build still holds the lock; the message contains its process ID.
        """
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + timeout
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise ReleaseError(
                        f"Another build has held {self._lock_file} for more than {timeout:g} s: "
                        f"{self._holders(descriptor)}. Wait for it or stop it, then run again. "
                        "Raise `lock_timeout` to wait longer."
                    )
                time.sleep(_POLL)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_locked(self) -> bool:
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _holders(self, descriptor: int) -> str:
        """Return the IDs of the processes that hold the lock: the build, or commands that outlived it."""
        lock = os.fstat(descriptor)
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            if process.name == str(os.getpid()):
                continue
            for link in _listing(process / "fd"):
                with contextlib.suppress(OSError):
                    status = link.stat()
                    if (status.st_dev, status.st_ino) == (lock.st_dev, lock.st_ino):
                        found.append(process.name)
                        break
        if found:
            return f"pid {', '.join(sorted(found, key=int))}"
        # The descriptors of another user's process are not visible, but it wrote its pid into the lock file.
        return f"pid {os.pread(descriptor, 32, 0).decode('ascii', 'replace').strip() or 'unknown'}"


def releases_to_prune(newest_first: Sequence[str], keep: int, protected: Collection[str]) -> list[str]:
    """Return the releases to remove: all except the newest and the protected ones.

    :param keep: number of the newest releases to keep.
    :param protected: releases to keep in addition.
    """
    return [name for name in newest_first[max(keep, 0) :] if name not in protected]


def remove_tree(path: Path) -> None:
    """Remove a directory, file or link, if it exists; never follows links."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a release, and flush it to disk."""
    with (directory / MANIFEST).open("x", encoding="utf-8") as handle:
        json.dump(content, handle, indent=2, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())


def _listing(path: Path) -> list[Path]:
    """Return the sorted entries of a directory; empty if it is missing or unreadable."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True
