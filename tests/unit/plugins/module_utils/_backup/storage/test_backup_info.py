# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification refuses an `.info` file that is not what was signed."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import keyring
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive.manifest import SourceRecord, Summary
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage import info
from faulty_host import Host


@pytest.fixture
def summary(keys):
    source = SourceRecord("files", "data", "files/data")
    return Summary(
        host="host",
        set="full",
        name="backup_20261123T040000Z_000007",
        seq=7,
        previous="",
        key=keys.signer,
        began="2026-11-23T04:00:00Z",
        sources=(source,),
        members=2,
        content_size=10,
        size=300,
        sha256="5" * 64,
        warnings=("a line\nHMAC-SHA256: 0",),
    )


def test_each_changed_byte_and_length_is_refused(summary, keys, tmp_path):
    path, content = tmp_path / "info", info.render(summary, keys)
    path.write_bytes(content)
    info.check(path, summary, keys)
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    for other in [*flipped, *(content[:size] for size in range(len(content))), content + b"\n", content + content]:
        path.write_bytes(other)
        with pytest.raises(NotAuthenticError, match="the file is not what was signed"):
            info.check(path, summary, keys)


def test_the_file_of_another_backup_is_refused(summary, keys, tmp_path):
    path, mine = tmp_path / "info", (f"Name: {summary.name}", f"SHA256: {summary.sha256}")
    for other in (
        replace(summary, name="backup_20261123T040000Z_000008", warnings=(f"x {mine[0]}", f"y\n{mine[0]}")),
        replace(summary, sha256="6" * 64, warnings=(f"x {mine[1]}", f"y\n{mine[1]}")),
    ):
        path.write_bytes(info.render(other, keys))
        with pytest.raises(NotAuthenticError):
            info.check(path, summary, keys)


def test_the_signature_is_as_documented(summary, keys):
    *lines, signature = info.render(summary, keys).splitlines(keepends=True)
    domain = b"aapanel.pipeline/backup/info/v2"
    key = keyring.hkdf(keys.masters[keys.signer], info=domain)
    expected = hmac.new(key, domain + b"\n" + b"".join(lines), hashlib.sha256).hexdigest()
    assert signature.decode() == f"HMAC-SHA256: {expected}\n"


@pytest.mark.parametrize("somebody", [lambda path: path.unlink(), lambda path: path.write_text("SHA256: 0\n")])
def test_verify_needs_the_file_and_restore_does_not(somebody, memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    host.panelctl("create")
    somebody(host.folder / f"{host.names()[0]}.info")
    (verdict,) = host.panelctl("verify", status=4)
    assert ".info: the file is " in verdict["problem"]
    host.panelctl("restore", "--to", str(memory / "restored"))
    assert list((memory / "restored").iterdir())
