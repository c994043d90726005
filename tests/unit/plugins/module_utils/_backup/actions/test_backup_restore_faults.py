# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore in place that fails at any call: afterwards the live data is the old data or the backed-up data."""

from __future__ import annotations

import errno
import itertools
import json
import signal
import sqlite3
from contextlib import closing

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import exchange
from faulty_host import Host, Kill, Refuse

BEFORE, BACKED_UP = ("changed", "kept", 2), ("content\n", "kept", 1)


@pytest.fixture
def host(request, memory, monkeypatch):
    if not request.param:
        # Like a file system without RENAME_EXCHANGE.
        monkeypatch.setattr(exchange, "_exchange", lambda *_: False)
    host = Host(memory)
    settings = host.settings
    # Excluded files stay as they are, whichever data is live.
    settings["sources"][0]["exclude"] = ["cache"]
    host.write_settings()
    host.panelctl("key-rotate")
    put(host, "content\n", 1)
    host.panelctl("create")
    host.keep()
    return host


def put(host, text, rows):
    """Write this text to the folder and the database."""
    (host.data / "folder" / "file").write_text(text)
    (host.data / "cache").mkdir(exist_ok=True)
    (host.data / "cache" / "page").write_text("kept")
    with closing(sqlite3.connect(host.config.parent / "panel.db")) as database, database:
        database.execute("DELETE FROM items")
        database.executemany("INSERT INTO items VALUES (?)", [(n,) for n in range(rows)])


def look(host):
    with closing(sqlite3.connect(host.config.parent / "panel.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM items").fetchone()
    return (host.data / "folder" / "file").read_text(), (host.data / "cache" / "page").read_text(), rows


def nothing_left(host):
    left = [path for path in host.state.rglob("*") if path.name.startswith(("restore", ".new-", ".restore"))]
    return not left and {path.name for path in host.data.parent.iterdir()} >= {"data", "panel.db", "settings.json"}


def changed(host):
    host.reset()
    put(host, "changed", 2)


@pytest.mark.parametrize(
    ("host", "half"),
    [(True, False), (False, False), (True, True)],
    ids=["exchange-before", "no exchange-before", "exchange-half done"],
    indirect=["host"],
)
def test_killed_at_any_call(half, host):
    seen = set()
    for number in itertools.count(1):
        changed(host)
        fault = Kill(number, half=half)
        done = host.run("restore", "--yes", hook=fault)
        if not fault.where:
            break
        assert done.status == -signal.SIGKILL
        # Any next command settles the restore, even a backup.
        host.panelctl(*(["settle"] if number % 8 else ["create"]))
        assert look(host) in {BEFORE, BACKED_UP}, fault.where
        assert nothing_left(host), fault.where
        assert {found["state"] for found in host.panelctl("list")} == {"good"}
        seen.add(look(host))
    assert done.status == 0, done.err
    assert look(host) == BACKED_UP
    assert seen == ({BEFORE, BACKED_UP} if not half else {BEFORE})
    assert number > 10


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("host", [True], indirect=True)
def test_disk_error_at_any_call(code, host):
    for number in itertools.count(1):
        changed(host)
        fault = Refuse(number, code, on=code == errno.ENOSPC)
        done = host.run("restore", "--yes", hook=fault)
        if not fault.where:
            break
        assert "Traceback" not in done.err, fault.where
        host.panelctl("settle")
        assert look(host) in {BEFORE, BACKED_UP}, fault.where
        assert done.status or look(host) == BACKED_UP
        assert nothing_left(host), fault.where
        assert {found["state"] for found in host.panelctl("list")} == {"good"}
    assert done.status == 0, done.err
    assert look(host) == BACKED_UP


@pytest.mark.parametrize("host", [True, False], indirect=True, ids=["exchange", "no exchange"])
def test_settle_killed_at_any_call(host):
    """The next run settles the restore, wherever both were killed."""
    phases = {}
    for number in itertools.count(1):
        changed(host)
        fault = Kill(number)
        host.run("restore", "--yes", hook=fault)
        if not fault.where:
            break
        if (journal := host.state / "restore.json").exists():
            phases.setdefault(json.loads(journal.read_text())["phase"], []).append(number)
        host.panelctl("settle")
    swapping = phases["swapping"]
    for died in (phases["loading"][-1], swapping[len(swapping) // 2], swapping[-1], phases["done"][0]):
        for number in itertools.count(1):
            changed(host)
            host.run("restore", "--yes", hook=Kill(died))
            fault = Kill(number)
            settled = host.run("settle", hook=fault)
            if not fault.where:
                break
            assert settled.status == -signal.SIGKILL
            host.panelctl("settle")
            assert look(host) == (BACKED_UP if died == phases["done"][0] else BEFORE), (died, fault.where)
            assert nothing_left(host), (died, fault.where)
        assert number > 2, died
        assert settled.status == 0, settled.err
    assert {found["state"] for found in host.panelctl("list")} == {"good"}
