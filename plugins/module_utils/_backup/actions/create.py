# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Make a backup: all of it, signed and on the disk, or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ..._host import durable
from ..archive import compression, manifest, names
from ..archive.compression import GzipWriter
from ..archive.manifest import SourceRecord, Summary
from ..archive.writer import Writer
from ..errors import AbsentError, BackupError
from ..progress import SILENT, Progress
from ..sources.source import Source
from ..storage import info
from ..storage.catalog import Catalog
from ..storage.store import Store, check_free_space, create_file


def create(
    store: Store,
    origins: Sequence[Source],
    name: str = names.FULL,
    *,
    wait: float = 0.0,
    report_progress: Progress = SILENT,
) -> Summary:
    """Back up.

    :param name: of the set that these are.
    :param wait: seconds to wait for another one that is at work.
    :param report_progress: is told what is being done.
    :raises BackupError: something could not be backed up; there is no backup then, and those before are untouched.
    """
    with store.locked(wait) as catalog:
        return create_locked(store, origins, name, catalog, report_progress)


def create_locked(
    store: Store, origins: Sequence[Source], set_name: str, catalog: Catalog, report_progress: Progress = SILENT
) -> Summary:
    """Back up, for who holds the lock; see `create`."""
    durable.make(store.folder)
    store.remove_leftovers(catalog)
    sizes = [origin.size() for origin in origins]
    _check_room(store, origins, sizes)
    canary = str(uuid.uuid4())
    unmarked = _write_canaries(origins, canary)
    began = datetime.now(timezone.utc)
    newest = catalog.newest
    seq = newest.seq + 1 if newest else 1
    name = names.format_name(began, seq)
    with _temporary_files(store, name) as archive_file, tempfile.TemporaryFile(dir=store.state_dir) as lines:
        archive = GzipWriter(archive_file)
        writer = Writer(archive, lines, report_progress)
        try:
            for problem in filter(None, unmarked.values()):
                writer.warn(f"no canary could be written, so that a drill cannot look for it: {problem}")
            sources = tuple(
                source if source.name in unmarked else replace(source, canary=canary)
                for source in _add_all(zip(origins, sizes, strict=True), writer, store, report_progress)
            )
            entries = writer.end()
            digest = archive.close()
        except BaseException:
            archive.abort()
            raise
        os.fsync(archive_file)
        summary = Summary(
            host=store.host,
            set=set_name,
            name=name,
            seq=seq,
            previous=newest.manifest if newest else "",
            key=store.keys.signer,
            began=names.timestamp(began),
            sources=sources,
            members=writer.members,
            content_size=writer.content_size,
            size=digest.size,
            sha256=digest.sha256,
            warnings=tuple(writer.warnings),
            partial=writer.partial,
        )
        write_file(store.temporary(name, names.INFO), info.render(summary, store.keys))
        with (
            create_file(store.temporary(name, names.MANIFEST)) as descriptor,
            os.fdopen(descriptor, "wb", closefd=False) as out,
        ):
            sha256 = manifest.write(out, summary, entries, store.keys)
            out.flush()
            os.fsync(descriptor)
        store.publish(summary, sha256, catalog)
    return summary


def _write_canaries(origins: Sequence[Source], canary: str) -> dict[str, str]:
    """Write the canary into all of them; returns why not, by name, of those that cannot be written to."""
    problems = {}
    for origin in origins:
        if not origin.in_place or (origin.optional and not origin.exists()):
            problems[origin.name] = ""
            continue
        try:
            origin.write_canary(canary)
        except BackupError as error:
            problems[origin.name] = str(error)
    return problems


def _add_all(
    origins: Iterable[tuple[Source, int]], writer: Writer, store: Store, report_progress: Progress
) -> Iterator[SourceRecord]:
    for origin, size in origins:
        report_progress(f"backing up {origin.name}", size)
        try:
            yield origin.add(writer, store.state_dir)
        except AbsentError as error:
            if not origin.optional or _was_backed_up(origin, store):
                raise
            writer.warn(f"{error}, and there never was")


def _was_backed_up(origin: Source, store: Store) -> bool:
    summaries = [found.summary for found in store.backups() if found.summary]
    return any(origin.name == source.name for summary in summaries for source in summary.sources)


def _check_room(store: Store, origins: Sequence[Source], sizes: Sequence[int]) -> None:
    # As if nothing could be compressed.
    archived = sum(sizes)
    # One at a time is written there before it goes into the archive.
    copied = max((size for origin, size in zip(origins, sizes, strict=True) if origin.is_database), default=0)
    if store.folder.stat().st_dev == store.state_dir.stat().st_dev:
        archived, copied = archived + copied, 0
    check_free_space(store.folder, archived, "this backup", "Prune, make room, or choose another folder.")
    if copied:
        check_free_space(store.state_dir, copied, "the copy of a database", "Make room.")


@contextlib.contextmanager
def _temporary_files(store: Store, name: str) -> Iterator[int]:
    """Give the archive's descriptor; whatever was not published goes again."""
    try:
        with create_file(store.temporary(name, names.ARCHIVE)) as descriptor:
            yield descriptor
    finally:
        for suffix in names.SUFFIXES:
            store.temporary(name, suffix).unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, durably but for its name."""
    with create_file(path) as descriptor:
        compression.write_all(descriptor, data)
        os.fsync(descriptor)
