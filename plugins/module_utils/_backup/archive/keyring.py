# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The keys that backups are signed with: many that verify, one that signs.

Each purpose has a key of its own, derived from a master key by HKDF-SHA256 (RFC 5869), so that what was signed for one
purpose says nothing for another.
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

#: Bytes of a master key, at least: as many as the digest has, or the key would be the weakest part.
MASTER_MIN = 32
MANIFEST, INFO, CATALOG, DRILL = "manifest", "info", "ledger", "drill"
_DOMAIN = "aapanel.pipeline/backup/{}/v2"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Keyring:
    """Master keys by their ids.

    :param signer: id of the one that signs; all others only verify what they once signed.
    :param file: where it was read from; there may be more keys by now.
    """

    signer: str
    masters: Mapping[str, bytes] = field(repr=False)
    file: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse what could not be a keyring.

        :raises BackupError: a key is too short or its id is none, or there is no signer.
        """
        for name, master in self.masters.items():
            if not _ID.fullmatch(name):
                raise BackupError(f"keyring: {name!r} is no id of a key: a-z, 0-9 and - make one")
            if len(master) < MASTER_MIN:
                raise BackupError(f"keyring: the key {name} has {len(master)} bytes; at least {MASTER_MIN} are needed")
        if self.signer not in self.masters:
            raise BackupError(f"keyring: the signer {self.signer!r} is none of its keys")

    def mac(self, purpose: str, key: str | None = None) -> hmac.HMAC:
        """Begin a HMAC-SHA256, by the signer or by another key.

        :param purpose: MANIFEST, INFO, CATALOG or DRILL.

        :raises NotAuthenticError: there is no such key.
        """
        name = self.signer if key is None else key
        master = self.masters.get(name) or self.reloaded().masters.get(name)
        if master is None:
            raise NotAuthenticError(
                f"it is signed by the key {name}; the keyring has {', '.join(sorted(self.masters))}, and not that one"
            )
        domain = _DOMAIN.format(purpose).encode("ascii")
        # The domain stands in the key and before the data: neither an old derivation nor an old text fits.
        return hmac.new(hkdf(master, info=domain), domain + b"\n", hashlib.sha256)

    def reloaded(self) -> Keyring:
        """Return the keyring as it is now: somebody may have rotated it."""
        return self if self.file is None else load(self.file)

    def rotated(self, day: str) -> Keyring:
        """Return the keyring with a new key that signs from now on.

        :param day: as in 2026-11-22; part of the new key's id, for people.
        """
        name = f"k{day}-{secrets.token_hex(3)}"
        return Keyring(name, {**self.masters, name: secrets.token_bytes(MASTER_MIN)})


def generate(day: str) -> Keyring:
    """Return a keyring with one fresh key."""
    first = f"k{day}-{secrets.token_hex(3)}"
    return Keyring(first, {first: secrets.token_bytes(MASTER_MIN)})


def load(file: Path) -> Keyring:
    """Read a keyring.

    :raises BackupError: it is not there, others can read it, or it is none.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BackupError(f"{file}: there is no keyring; `panelctl backup key-rotate` makes one") from None
    with os.fdopen(descriptor, "rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if mode & 0o077:
            raise BackupError(
                f"{file}: others may read this keyring (mode {mode:04o}); chmod 0600 it, then rotate the key"
            )
        content = stream.read()
    try:
        found = json.loads(content)
        masters = {name: base64.b64decode(text, validate=True) for name, text in found["keys"].items()}
        return Keyring(str(found["signer"]), masters, file)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # What is wrong with it might quote it.
        raise BackupError(f"{file}: this is no keyring: an object with `signer` and `keys` makes one") from None


def save(keyring: Keyring, file: Path) -> None:
    """Write a keyring, durably, for its owner's eyes only. Under the lock, so nobody else is at it."""
    for left in file.parent.iterdir():
        # Of one that was killed: keys that never signed anything, but keys.
        if left.name.startswith(f".{file.name}.") and left.suffix[1:].isdigit():
            left.unlink()
    keys = {name: base64.b64encode(master).decode("ascii") for name, master in keyring.masters.items()}
    durable.write(file, json.dumps({"signer": keyring.signer, "keys": keys}, indent=2, sort_keys=True) + "\n", 0o600)


def hkdf(master: bytes, *, info: bytes, salt: bytes = b"", length: int = 32) -> bytes:
    """Derive a key: HKDF with SHA-256 (RFC 5869, sections 2.2 and 2.3).

    :param length: bytes of the key; at most 255 times those of the digest.
    """
    digest = hashlib.sha256
    pseudorandom = hmac.digest(salt or bytes(digest().digest_size), master, digest)
    block, key, counter = b"", b"", 0
    while len(key) < length:
        counter += 1
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), digest)
        key += block
    return key[:length]
