# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The catalog of a host that has made backups for years."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.catalog import (
    CREATED,
    PRUNED,
    PRUNING,
    Catalog,
    Record,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store
from faulty_host import RULES, Host

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def grown(memory, keys):
    """A catalog of a thousand backups, of which all but the last three are pruned."""
    catalog = Catalog(memory / "ledger", keys)
    for seq in range(1, 1001):
        moment = BEGAN + timedelta(minutes=20 * seq)
        record = Record(CREATED, seq, names.format_name(moment, seq), f"{seq:064x}", names.timestamp(moment))
        catalog.append(record)
        if seq <= 997:
            catalog.append(Record(PRUNING, seq, record.name, record.manifest, record.at))
            catalog.append(Record(PRUNED, seq, record.name, record.manifest, record.at))
    return catalog


def peak(action):
    """Return the peak memory of a call, in bytes."""
    tracemalloc.start()
    try:
        kept = action()
        return kept, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_pruned_backups_take_little_memory(grown, keys):
    read, taken = peak(lambda: Catalog(grown.file, keys))
    assert (len(read.existing()), len(read.pruned()), read.newest.seq) == (3, 997, 1000)
    assert read.created(read.pruned()[0]).manifest == f"{1:064x}"
    assert taken < 0.75 * grown.file.stat().st_size
    _, taken = peak(lambda: read.append(Record(CREATED, 1001, "backup", "", "")))
    assert taken < 0.02 * grown.file.stat().st_size


def test_a_command_reads_the_catalog_once_for_all_backups(memory, monkeypatch):
    host = Host(memory)
    host.settings["sets"] = {"full": {"retention": {**RULES, "newest": 3}}}
    host.write_settings()
    host.panelctl("key-rotate")
    for _ in range(4):
        host.panelctl("create")
    plain, read = Catalog.__init__, []
    monkeypatch.setattr(Catalog, "__init__", lambda *arguments: read.append(plain(*arguments)))
    for command in ("list", "prune", "verify", "verify --all"):
        read.clear()
        host.panelctl(*command.split())
        assert len(read) == 1, command


def test_records_of_another_process_are_read(store):
    """A change of a line that was read before is reported, too."""
    create.create(store, [])
    before = store.catalog()
    assert store.catalog() is before
    create.create(Store(store.folder, store.state_dir, store.host, store.keys), [])
    assert store.catalog().newest.seq == 2
    assert before.newest.seq == 1
    file = store.state_dir / "ledger"
    file.write_bytes(file.read_bytes().replace(b"creating", b"creation"))
    with pytest.raises(NotAuthenticError, match="line 1"):
        store.catalog()
