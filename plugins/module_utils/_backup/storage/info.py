# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The `.info` file of a backup, for people and their tools: lines of text, the last of which signs the others.

A restore reads the manifest and never this file. The signature covers the text, which has the SHA-256 of the archive.
So the archive need not be digested again for its own HMAC, as long as nobody finds two archives with one SHA-256.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from ..archive import keyring, manifest, names
from ..archive.keyring import Keyring
from ..archive.manifest import Summary
from ..errors import NotAuthenticError
from .store import open_file

_SIGNATURE = b"HMAC-SHA256: "
_MAX = 1 << 20  # bytes; most of them would be warnings


def render(summary: Summary, keys: Keyring) -> bytes:
    """Return the content of the file, signed with the key that the summary names."""
    lines = {
        "Format": f"v{manifest.FORMAT}",
        "Name": summary.name,
        "Began": summary.began,
        "Sources": ", ".join(f"{source.kind} {source.name}" for source in summary.sources),
        "Members": summary.members,
        "Size": summary.size,
        "SHA256": summary.sha256,
        "Key": summary.key,
        **{f"Warning {number}": names.printable(text) for number, text in enumerate(summary.warnings, 1)},
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items()).encode("utf-8")
    return text + _signature(text, summary, keys)


def check(path: Path, summary: Summary, keys: Keyring) -> None:
    """Check that the file says what was signed of this backup.

    :raises NotAuthenticError: it says something else, or is missing.
    """
    with open_file(path, NotAuthenticError(f"{path}: the file is missing")) as stream:
        content = stream.read(_MAX)
    text, _separator, _line = content.rpartition(_SIGNATURE)
    # Only at the beginning of a line: a warning may quote the name of a file, which others can choose.
    complete = all(f"\n{line}\n".encode() in text for line in (f"Name: {summary.name}", f"SHA256: {summary.sha256}"))
    if not complete or not hmac.compare_digest(content, text + _signature(text, summary, keys)):
        raise NotAuthenticError(f"{path}: the file is not what was signed; trust the manifest and the archive instead")


def _signature(text: bytes, summary: Summary, keys: Keyring) -> bytes:
    mac = keys.mac(keyring.INFO, summary.key)
    mac.update(text)
    return b"%s%s\n" % (_SIGNATURE, mac.hexdigest().encode("ascii"))
