# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Create a backup: complete, signed and durable, or not at all."""

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
    sources: Sequence[Source],
    set_name: str = names.FULL,
    *,
    wait: float = 0.0,
    report_progress: Progress = SILENT,
) -> Summary:
    """Create a backup of the sources.

    :param set_name: name of the backup set that the sources form.
    :param wait: seconds to wait for another backup, restore or prune.
    :raises BackupError: a source could not be backed up; no backup was created, and existing ones are unchanged.
    """
    with store.locked(wait) as catalog:
        return create_locked(store, sources, set_name, catalog, report_progress)


def create_locked(
    store: Store, sources: Sequence[Source], set_name: str, catalog: Catalog, report_progress: Progress = SILENT
) -> Summary:
    """Create a backup while the caller holds the lock; see `create`."""
    durable.make(store.folder)
    store.remove_leftovers(catalog)
    sizes = [source.size() for source in sources]
    _check_space(store, sources, sizes)
    canary = str(uuid.uuid4())
    unmarked = _write_canaries(sources, canary)
    began = datetime.now(timezone.utc)
    newest = catalog.newest
    seq = newest.seq + 1 if newest else 1
    name = names.format_name(began, seq)
    with _temporary_files(store, name) as archive_file, tempfile.TemporaryFile(dir=store.state_dir) as lines:
        archive = GzipWriter(archive_file)
        writer = Writer(archive, lines, report_progress)
        try:
            for problem in filter(None, unmarked.values()):
                writer.warn(f"no canary was written, so a drill cannot check for it: {problem}")
            records = tuple(
                record if record.name in unmarked else replace(record, canary=canary)
                for record in _add_all(zip(sources, sizes, strict=True), writer, store, report_progress)
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
            sources=records,
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


def _write_canaries(sources: Sequence[Source], canary: str) -> dict[str, str]:
    """Write the canary into each source.

    :returns: the reason for each source that has no canary, by its name; empty if it needs none.
    """
    reasons = {}
    for source in sources:
        if not source.in_place or (source.optional and not source.exists()):
            reasons[source.name] = ""
            continue
        try:
            source.write_canary(canary)
        except BackupError as error:
            reasons[source.name] = str(error)
    return reasons


def _add_all(
    sources: Iterable[tuple[Source, int]], writer: Writer, store: Store, report_progress: Progress
) -> Iterator[SourceRecord]:
    for source, size in sources:
        report_progress(f"backing up {source.name}", size)
        try:
            yield source.add(writer, store.state_dir)
        except AbsentError as error:
            if not source.optional or _was_backed_up(source, store):
                raise
            writer.warn(f"{error}, and no backup has one")


def _was_backed_up(source: Source, store: Store) -> bool:
    summaries = [found.summary for found in store.backups() if found.summary]
    return any(source.name == record.name for summary in summaries for record in summary.sources)


def _check_space(store: Store, sources: Sequence[Source], sizes: Sequence[int]) -> None:
    # The worst case: nothing can be compressed.
    archived = sum(sizes)
    # Databases are dumped to the state directory first, one at a time.
    copied = max((size for source, size in zip(sources, sizes, strict=True) if source.is_database), default=0)
    if store.folder.stat().st_dev == store.state_dir.stat().st_dev:
        archived, copied = archived + copied, 0
    check_free_space(store.folder, archived, "this backup", "Prune, free some space, or choose another folder.")
    if copied:
        check_free_space(store.state_dir, copied, "the copy of a database", "Free some space.")


@contextlib.contextmanager
def _temporary_files(store: Store, name: str) -> Iterator[int]:
    """Yield the archive's descriptor; remove the temporary files that were not published."""
    try:
        with create_file(store.temporary(name, names.ARCHIVE)) as descriptor:
            yield descriptor
    finally:
        for suffix in names.SUFFIXES:
            store.temporary(name, suffix).unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Create a file and make its content durable; its name is durable once the folder is synced."""
    with create_file(path) as descriptor:
        compression.write_all(descriptor, data)
        os.fsync(descriptor)
