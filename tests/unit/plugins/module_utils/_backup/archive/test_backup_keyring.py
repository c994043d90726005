# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import keyring
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import State
from faulty_host import Host


@pytest.mark.parametrize(
    ("master", "salt", "info", "length", "key"),
    [
        # RFC 5869, appendix A, test cases 1 to 3.
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "".join(f"{n:02x}" for n in range(0x50)),
            "".join(f"{n:02x}" for n in range(0x60, 0xB0)),
            "".join(f"{n:02x}" for n in range(0xB0, 0x100)),
            82,
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf(master, salt, info, length, key):
    found = keyring.hkdf(bytes.fromhex(master), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length)
    assert found.hex() == key


def test_a_signature_for_one_purpose_is_not_valid_for_another(keys):
    def sign(purpose, key=None):
        mac = keys.mac(purpose, key)
        mac.update(b"text")
        return mac.hexdigest()

    purposes = (keyring.MANIFEST, keyring.INFO, keyring.CATALOG, keyring.DRILL)
    assert len({sign(purpose) for purpose in purposes}) == len(purposes)
    assert sign(keyring.MANIFEST) == sign(keyring.MANIFEST, keys.signer)


def test_a_rotated_keyring_signs_with_a_new_key_and_keeps_the_old_one(keys, tmp_path):
    rotated = keys.rotated("2026-11-23")
    assert rotated.signer != keys.signer
    assert rotated.mac(keyring.CATALOG, keys.signer).digest() == keys.mac(keyring.CATALOG).digest()
    with pytest.raises(NotAuthenticError, match=rotated.signer):
        keys.mac(keyring.CATALOG, rotated.signer)
    file = tmp_path / "keyring.json"
    keyring.save(rotated, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert keyring.load(file) == rotated


def test_keys_are_not_in_the_representation(keys):
    secret = next(iter(keys.masters.values()))
    assert repr(secret) not in repr(keys)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("no json, but s3cret", "not a keyring"),
        (json.dumps({"signer": "a"}), "not a keyring"),
        (json.dumps({"signer": "a", "keys": {"a": "s3cret!"}}), "not a keyring"),
        (json.dumps({"signer": "a", "keys": {"a": "c2hvcnQ="}}), "at least 32"),
        (
            json.dumps({"signer": "b", "keys": {"a": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}}),
            "not one of the keys",
        ),
        (
            json.dumps({"signer": "A", "keys": {"A": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}}),
            "not a valid key ID",
        ),
    ],
)
def test_an_invalid_keyring_is_refused_without_quoting_it(content, word, tmp_path):
    file = tmp_path / "keyring.json"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(BackupError, match=word) as error:
        keyring.load(file)
    assert "s3cret" not in str(error.value)


def test_a_keyring_that_others_can_read_is_refused(keys, tmp_path):
    file = tmp_path / "keyring.json"
    keyring.save(keys, file)
    file.chmod(0o640)
    with pytest.raises(BackupError, match="other users may read"):
        keyring.load(file)
    with pytest.raises(BackupError, match="there is no keyring"):
        keyring.load(tmp_path / "missing")


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    host.panelctl("create")
    return host


def test_a_process_from_before_a_rotation_accepts_signatures_of_the_new_key(host):
    store = settings.load(host.config).store()
    signer = host.panelctl("key-rotate")["signer"]
    made = host.panelctl("create")
    assert made["key"] == signer
    assert [backup.state for backup in store.backups()] == [State.GOOD] * 2
    with extract.verified_backup(store, made["name"]):
        pass


def test_a_process_that_waited_during_a_rotation_signs_with_the_new_key(host):
    found = settings.load(host.config)
    store = found.store()
    signer = host.panelctl("key-rotate")["signer"]
    host.panelctl("create")
    assert create.create(store, found.sources).key == signer
    assert store.catalog().newest.seq == 3
