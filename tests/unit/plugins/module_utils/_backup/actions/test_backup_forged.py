# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manipulations of the catalog, the keyring and the folder of a restore are noticed, and do no harm."""

from __future__ import annotations

import itertools
import json
import os
import tarfile
from dataclasses import replace

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract, restore
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import keyring
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BusyError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.offsite import fetch
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.catalog import (
    ADOPTED,
    CREATED,
    CREATING,
    Catalog,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import State, Store
from faulty_host import Host, records


@pytest.fixture
def made(store, tmp_path):
    """Three backups; the first one is pruned."""
    root = tmp_path / "data"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("content\n")
    made = [create.create(store, [directory.Files("data", root)]).name for _ in range(3)]
    with store.locked() as ledger:
        store.remove(store.good()[0], ledger, "2026-11-22T00:00:00Z")
    return made


def states(store):
    return [(backup.name, backup.state) for backup in store.backups()]


def test_flipped_bit_of_the_catalog_is_found_at_every_byte(store):
    made = [create.create(store, []).name for _ in range(2)]
    file = store.state_dir / "ledger"
    good = file.read_bytes()
    for place in range(len(good) - 1):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        file.write_bytes(broken)
        with pytest.raises(NotAuthenticError, match="ledger, line"):
            store.catalog()
    # Without its newline, the last line counts as incomplete.
    file.write_bytes(good[:-1] + b"\x0b")
    with store.locked():
        pass
    assert states(store) == [(name, State.GOOD) for name in made]


def test_forged_catalog_stops_all_commands_and_is_not_changed(tmp_path):
    host = Host(tmp_path)
    host.panelctl("key-rotate")
    host.panelctl("create")
    ledger = host.state / "ledger"
    forged = ledger.read_bytes().replace(b"created", b"pruned ")
    ledger.write_bytes(forged)
    before = {path: path.read_bytes() for path in host.folder.iterdir()}
    for command in (["create"], ["prune"], ["list"], ["verify"], ["restore", "--to", str(host.to)]):
        status, told = host.command(*command)
        assert (status, told.count("\n")) == (4, 1)
        assert "ledger, line 2: the signature is wrong" in told
    assert {path: path.read_bytes() for path in host.folder.iterdir()} == before
    assert ledger.read_bytes() == forged


def test_complete_lines_of_a_truncated_catalog_count(store):
    for _ in range(2):
        create.create(store, [])
    file = store.state_dir / "ledger"
    good, made = file.read_bytes(), list(store.catalog().existing().values())
    lines = good.splitlines(keepends=True)
    for size in range(len(good)):
        file.write_bytes(good[:size])
        whole, found = good[:size].count(b"\n"), store.catalog()
        assert found.size == sum(map(len, lines[:whole]))
        # The first line is an announcement.
        assert list(found.existing().values()) == made[: max(0, whole - 1)]


def test_truncated_catalog_loses_no_backup_and_revives_none(store, made):
    file = store.state_dir / "ledger"
    lines = file.read_bytes().splitlines(keepends=True)
    for count, torn in itertools.product(range(len(lines)), (0, 100)):
        file.write_bytes(b"".join(lines[:count]) + lines[count][:torn])
        with store.locked():
            pass
        found = dict(states(store))
        if count:
            # Without the record of its removal, the first backup is reported as missing.
            assert {found.pop(made[0], State.MISSING)} == {State.MISSING}
            assert found == dict.fromkeys(made[1:], State.GOOD)
        else:
            # Without any record, nothing proves that these backups are the newest ones of this host.
            assert State.GOOD not in found.values()


@pytest.fixture
def replacement(store, tmp_path):
    """A replacement host with the folder and the keys of its predecessor, and an empty catalog."""
    return Store(store.folder, tmp_path / "state-elsewhere", store.host, store.keys)


def test_replacement_host_has_no_good_backup_before_it_adopts(store, replacement, tmp_path):
    origins = [directory.Files("state", store.state_dir)]
    store.state_dir.mkdir()
    made = [create.create(store, origins).name for _ in range(4)]
    with store.locked() as ledger:
        store.remove(store.good()[2], ledger, "2026-11-22T00:00:00Z")
    del made[2]
    with replacement.locked():
        assert not records(replacement)
    assert states(replacement) == [(name, State.REPLAYED) for name in made]
    assert "panelctl backup adopt" in replacement.backups()[0].problem
    assert fetch.adopt(replacement).adopted == made
    assert {record["event"] for record in records(replacement)} == {ADOPTED}
    assert [backup.name for backup in replacement.good()] == made
    assert list(restore.plan(replacement, origins)) == [made[-1]]


def test_successor_of_an_adopted_backup_is_not_adopted_automatically(store, replacement):
    made = [create.create(store, []).name for _ in range(3)]
    assert fetch.adopt(replacement, made[:2]).adopted == made[:2]
    with replacement.locked():
        pass
    assert dict(states(replacement))[made[2]] is State.REPLAYED


@pytest.mark.parametrize("adopted", [False, True], ids=["first", "after others"])
def test_backup_killed_before_its_record_is_recognised(adopted, store, replacement, monkeypatch):
    if adopted:
        create.create(store, [])
        fetch.adopt(replacement)
    append = Catalog.append

    def dying(ledger, record):
        if record.event == CREATED:
            raise KeyboardInterrupt
        append(ledger, record)

    monkeypatch.setattr(Catalog, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        create.create(replacement, [])
    monkeypatch.undo()
    assert records(replacement)[-1]["event"] == CREATING
    assert replacement.backups()[-1].state is State.GOOD
    own = replacement.backups()[-1].name
    with replacement.locked() as ledger:
        assert ledger.created(own).event == CREATED
    # The next backup needs no announcement.
    create.create(replacement, [])
    assert [record["event"] for record in records(replacement)][-3:] == [CREATING, CREATED, CREATED]


def test_only_announced_backups_are_recognised(store, replacement):
    name = create.create(store, []).name
    manifest = store.catalog().created(name)
    for other in (replace(manifest, name="backup_20260101T000000Z_000001"), replace(manifest, manifest="0" * 64)):
        with replacement.locked() as ledger:
            ledger.append(replace(other, event=CREATING))
        with replacement.locked():
            assert states(replacement) == [(name, State.REPLAYED)]


def without(host, key):
    content = json.loads(host.keyring.read_text())
    del content["keys"][key]
    host.keyring.write_text(json.dumps(content))


def test_missing_key_is_named(tmp_path):
    host = Host(tmp_path)
    first = host.panelctl("key-rotate")["signer"]
    host.panelctl("create")
    second = host.panelctl("key-rotate")["signer"]
    name = host.panelctl("create")["name"]
    assert [found["result"] for found in host.panelctl("verify", "--all")] == ["good", "good"]
    without(host, first)
    for command in (["verify", name], ["create"], ["list"]):
        status, told = host.command(*command)
        assert status == 4
        assert f"signed with the key {first}, which is not in the keyring (it has {second})" in told


def test_different_key_of_the_same_name_is_refused(store, made, tmp_path):
    other = keyring.Keyring(store.keys.signer, {store.keys.signer: bytes(32)})
    stranger = Store(store.folder, tmp_path / "elsewhere", store.host, other)
    assert {state for _, state in states(stranger)} == {State.FORGED}
    with pytest.raises(NotAuthenticError, match="signature is wrong"):
        Store(store.folder, store.state_dir, store.host, other).backups()


def extracted(store, name, to):
    with extract.verified_backup(store, name) as (found, archive):
        extract.extract(found, archive, to)


@pytest.fixture
def after_mkdir(monkeypatch):
    """Return a function that runs an action once a folder of a name was created."""
    mkdir = os.mkdir

    def install(name, action):
        def making(path, *rest, **options):
            mkdir(path, *rest, **options)
            if os.path.basename(path) == name:  # noqa: PTH119 (as the one that it stands for)
                monkeypatch.setattr(os, "mkdir", mkdir)
                action()

        monkeypatch.setattr(os, "mkdir", making)

    return install


def swapped(path, make):
    """Return an action that moves a folder aside, and replaces it."""

    def action():
        path.rename(path.with_name("aside"))
        make(path)

    return action


def closed(path):
    path.mkdir(mode=0o700)


def opened(path):
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("within", [".restoring-to", "files", "data", "folder"])
def test_symlink_in_place_of_a_folder_is_not_followed_by_a_restore(within, store, made, tmp_path, after_mkdir):
    parts = {".restoring-to": "", "files": "files", "data": "files/data", "folder": "files/data/folder"}
    outside = tmp_path / "outside"
    outside.mkdir()
    place = tmp_path / ".restoring-to" / parts[within]
    after_mkdir(within, swapped(place, lambda path: path.symlink_to(outside)))
    with pytest.raises((NotAuthenticError, OSError)):
        extracted(store, made[-1], tmp_path / "to")
    assert not list(outside.iterdir())
    assert not (tmp_path / "to").exists()


def test_symlink_in_place_of_a_file_is_not_followed_by_a_restore(store, made, tmp_path, after_mkdir):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    after_mkdir("folder", lambda: (tmp_path / ".restoring-to/files/data/folder/file").symlink_to(outside))
    with pytest.raises(NotAuthenticError):
        extracted(store, made[-1], tmp_path / "to")
    assert outside.read_text() == "untouched"
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(("when", "make"), [(".restoring-to", opened), ("folder", closed), ("folder", opened)])
def test_replaced_staging_folder_is_refused(when, make, store, made, after_mkdir):
    tmp_path = store.folder.parent
    after_mkdir(when, swapped(tmp_path / ".restoring-to", make))
    with pytest.raises(NotAuthenticError, match="this folder was replaced"):
        extracted(store, made[-1], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_two_restores_to_one_folder(store, made, tmp_path, monkeypatch):
    after, met = extract._signed_members, []

    def meanwhile(*arguments):
        monkeypatch.setattr(extract, "_signed_members", after)
        with pytest.raises(BusyError, match="another restore"):
            extracted(store, made[-1], tmp_path / "to")
        met.append(True)
        return after(*arguments)

    monkeypatch.setattr(extract, "_signed_members", meanwhile)
    extracted(store, made[-1], tmp_path / "to")
    assert met
    assert (tmp_path / "to/files/data/folder/file").read_text() == "content\n"


def hostile(**changes):
    found = tarfile.TarInfo(changes.pop("name", "member"))
    for name, value in changes.items():
        setattr(found, name, value)
    return found.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    "content",
    [
        hostile(pax_headers={"path": "a\0b"}),
        hostile(name="a").replace(b"a\0", b"a\0b", 1),
        hostile(type=tarfile.BLKTYPE),
        hostile(type=tarfile.CONTTYPE),
        hostile(pax_headers={"mtime": str(2**62)}),
        hostile(pax_headers={"uid": str(2**62)}),
        hostile(pax_headers={"gid": "-7"}),
        hostile(pax_headers={"uid": "-7"}, type=tarfile.DIRTYPE),
    ],
)
def test_impossible_members_are_refused(content, tmp_path):
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w:gz") as packed:
        packed.fileobj.write(content)
    with archive.open("rb") as stream, pytest.raises(NotAuthenticError):
        extract.extract_unproven(stream.fileno(), tmp_path / "to", extract.ArchiveLimits())
    assert not list(tmp_path.glob("*to"))
