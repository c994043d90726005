# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Make a backup: all of it, signed and on the disk, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from .. import _durable
from . import compression, keyring, manifest, names
from .compression import Archive, Digest
from .errors import BackupError
from .ledger import Ledger
from .manifest import Source, Summary
from .sources import Origin
from .store import Store
from .writer import Writer

_ROOM = 64 << 20  # bytes that are left to everybody else

Progress = Callable[[str], None]


def create(
    store: Store,
    origins: Sequence[Origin],
    name: str = names.FULL,
    *,
    wait: float = 0.0,
    say: Progress = lambda _: None,
) -> Summary:
    """Back up.

    :param name: of the set that these are.
    :param wait: seconds to wait for another one that is at work.
    :param say: is told what is being done.
    :raises BackupError: something could not be backed up; there is no backup then, and those before are untouched.
    """
    with store.locked(wait) as ledger:
        _durable.make(store.folder)
        store.sweep(ledger)
        _check_room(store.folder, origins)
        return _create(store, origins, name, ledger, say)


def _create(store: Store, origins: Sequence[Origin], set_: str, ledger: Ledger, say: Progress) -> Summary:
    began = datetime.now(timezone.utc)
    newest = ledger.newest
    seq = newest.seq + 1 if newest else 1
    name = names.name(began, seq)
    with _temporary(store, name) as archive_file, tempfile.TemporaryFile(dir=store.state_dir) as lines:
        archive = Archive(archive_file, store.keys.mac(keyring.ARCHIVE))
        writer = Writer(archive, lines)
        try:
            sources = _add_all(origins, writer, store.state_dir, say)
            entries = writer.end()
            digest = archive.close()
        except BaseException:
            archive.abort()
            raise
        os.fsync(archive_file)
        summary = Summary(
            host=store.host,
            set=set_,
            name=name,
            seq=seq,
            previous=newest.manifest if newest else "",
            key=store.keys.signer,
            began=names.stamp(began),
            sources=sources,
            members=writer.members,
            content_size=writer.content_size,
            size=digest.size,
            sha256=digest.sha256,
            warnings=tuple(writer.warnings),
            partial=writer.partial,
        )
        _write(store.temporary(name, names.INFO), _info(summary, digest).encode("utf-8"))
        with (
            _new(store.temporary(name, names.MANIFEST)) as descriptor,
            os.fdopen(descriptor, "wb", closefd=False) as out,
        ):
            sha256 = manifest.write(out, summary, entries, store.keys)
            out.flush()
            os.fsync(descriptor)
        store.publish(summary, sha256, ledger)
    return summary


def _add_all(origins: Sequence[Origin], writer: Writer, scratch: Path, say: Progress) -> tuple[Source, ...]:
    found = []
    for origin in origins:
        say(origin.name)
        found.append(origin.add(writer, scratch))
    return tuple(found)


def _check_room(folder: Path, origins: Sequence[Origin]) -> None:
    # As if nothing could be compressed: a backup that fills the disk up takes the panel down.
    needed = sum(origin.size() for origin in origins) + _ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupError(
            f"{folder}: {free >> 20} MiB are free, and this backup may need {needed >> 20}. Prune, make room, or "
            "choose another folder."
        )


def _info(summary: Summary, digest: Digest) -> str:
    """What people and their tools read; it is the manifest that proves it."""
    lines = {
        "Format": f"v{manifest.FORMAT}",
        "Name": summary.name,
        "Began": summary.began,
        "Sources": ", ".join(f"{source.kind} {source.name}" for source in summary.sources),
        "Members": summary.members,
        "Size": digest.size,
        "SHA256": digest.sha256,
        "HMAC-SHA256": digest.hmac,
        "Key": summary.key,
        **{f"Warning {number}": names.shown(text) for number, text in enumerate(summary.warnings, 1)},
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


@contextlib.contextmanager
def _temporary(store: Store, name: str) -> Iterator[int]:
    """Give the archive's descriptor; whatever was not published goes again."""
    try:
        with _new(store.temporary(name, names.ARCHIVE)) as descriptor:
            yield descriptor
    finally:
        for suffix in names.SUFFIXES:
            store.temporary(name, suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _new(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    with _new(path) as descriptor:
        compression.write_all(descriptor, data)
        os.fsync(descriptor)
