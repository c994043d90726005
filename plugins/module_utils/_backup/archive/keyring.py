# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The keyring: the keys that sign backups. One of them signs new backups; all of them verify.

Each purpose has a key of its own, derived from a master key by HKDF-SHA256 (RFC 5869), so that a signature for one
purpose is not valid for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..._host import durable
from ..errors import BackupError, NotAuthenticError

#: Minimum size of a master key in bytes: that of the digest, so that the key is not the weakest part.
MASTER_MIN = 32
#: Purposes. They are part of the derivation of keys: a changed value would invalidate all signatures.
MANIFEST, INFO, CATALOG, DRILL = "manifest", "info", "ledger", "drill"
_DOMAIN = "aapanel.pipeline/backup/{}/v2"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Keyring:
    """Master keys by ID.

    :param signer: ID of the key that signs; the others only verify older backups.
    :param file: the file that it was read from, which may have more keys by now.
    """

    signer: str
    masters: Mapping[str, bytes] = field(repr=False)
    file: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check the keys.

        :raises BackupError: a key is too short, an ID is invalid, or the signer is missing.
        """
        for name, master in self.masters.items():
            if not _ID.fullmatch(name):
                raise BackupError(f"keyring: {name!r} is not a valid key ID: use a-z, 0-9 and -")
            if len(master) < MASTER_MIN:
                raise BackupError(
                    f"keyring: the key {name} has {len(master)} bytes; at least {MASTER_MIN} are required"
                )
        if self.signer not in self.masters:
            raise BackupError(f"keyring: the signer {self.signer!r} is not one of the keys")

    def mac(self, purpose: str, key: str | None = None) -> hmac.HMAC:
        """Return a new HMAC-SHA256.

        :param purpose: MANIFEST, INFO, CATALOG or DRILL.
        :param key: ID of the key; that of the signer if left out.
        :raises NotAuthenticError: there is no such key.
        """
        name = self.signer if key is None else key
        master = self.masters.get(name) or self.reloaded().masters.get(name)
        if master is None:
            raise NotAuthenticError(
                f"signed with the key {name}, which is not in the keyring (it has {', '.join(sorted(self.masters))})"
            )
        domain = _DOMAIN.format(purpose).encode("ascii")
        # The domain is part of the key and of the data, so that signatures of other purposes and formats never match.
        return hmac.new(hkdf(master, info=domain), domain + b"\n", hashlib.sha256)

    def reloaded(self) -> Keyring:
        """Return the keyring as the file has it now: it may have been rotated."""
        return self if self.file is None else load(self.file)

    def rotated(self, day: str) -> Keyring:
        """Return the keyring with a new key as signer.

        :param day: such as 2026-11-22; part of the new key's ID.
        """
        name = f"k{day}-{secrets.token_hex(3)}"
        return Keyring(name, {**self.masters, name: secrets.token_bytes(MASTER_MIN)})


def generate(day: str) -> Keyring:
    """Return a keyring with one new key.

    :param day: as in `Keyring.rotated`.
    """
    first = f"k{day}-{secrets.token_hex(3)}"
    return Keyring(first, {first: secrets.token_bytes(MASTER_MIN)})


def load(file: Path) -> Keyring:
    """Read a keyring.

    :raises BackupError: it is missing, others can read it, or it is not a keyring.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BackupError(f"{file}: there is no keyring; `panelctl backup key-rotate` creates one") from None
    with os.fdopen(descriptor, "rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if mode & 0o077:
            raise BackupError(
                f"{file}: other users may read this keyring (mode {mode:04o}); chmod 0600 it, then rotate the key"
            )
        content = stream.read()
    try:
        found = json.loads(content)
        masters = {name: base64.b64decode(text, validate=True) for name, text in found["keys"].items()}
        return Keyring(str(found["signer"]), masters, file)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # Without the original error: it might quote a key.
        raise BackupError(
            f"{file}: not a keyring, which is a JSON object with `signer` and `keys`; restore the file from its copy"
        ) from None


def save(keyring: Keyring, file: Path) -> None:
    """Write a keyring, durably, readable by its owner only. The caller holds the lock of the store."""
    for left in file.parent.iterdir():
        # Temporary files of killed processes: their keys have signed nothing, but are secret.
        if left.name.startswith(f".{file.name}.") and left.suffix[1:].isdigit():
            left.unlink()
    keys = {name: base64.b64encode(master).decode("ascii") for name, master in keyring.masters.items()}
    durable.write(file, json.dumps({"signer": keyring.signer, "keys": keys}, indent=2, sort_keys=True) + "\n", 0o600)


def hkdf(master: bytes, *, info: bytes, salt: bytes = b"", length: int = 32) -> bytes:
    """Derive a key: HKDF with SHA-256 (RFC 5869, sections 2.2 and 2.3).

    :param length: size of the key in bytes; at most 255 times that of the digest.
    """
    digest = hashlib.sha256
    pseudorandom = hmac.digest(salt or bytes(digest().digest_size), master, digest)
    block, key, counter = b"", b"", 0
    while len(key) < length:
        counter += 1
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), digest)
        key += block
    return key[:length]
