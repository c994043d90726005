# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A remote that rclone can reach, with optional encryption by age. Both stream, so they need no space on this disk.

Secrets stay in files: the arguments of the programs contain only the names of these files.
"""

from __future__ import annotations

import configparser
import json
import math
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from .. import programs
from ..errors import BackupError, NotAuthenticError
from ..programs import ProgramError, Stream

#: File name extension of an encrypted file.
AGE = ".age"
_RCLONE, _AGE = "rclone", "age"
_REMOTE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+@ -]*):[^\0\n]*")
_EXIT_NO_FOLDER = 3  # rclone's exit status if the folder does not exist
_ATTEMPTS = 3
_RETRY_DELAY = 2.0  # seconds
_S3_PART_MIN = 5  # MiB; S3 accepts 10,000 parts of a file, and rclone cannot know the size of a stream
_S3_PARTS_MAX = 9_000

_RCLONE_RETRY_FLAGS = ("--contimeout=20s", "--timeout=2m", "--retries=3", "--low-level-retries=3")
# Set in the environment, because older releases reject unknown arguments but ignore unknown variables. These settings
# let an append-only remote work, which cannot rename or change files, and keep rclone from writing its configuration.
_RCLONE_ENVIRONMENT = {
    "RCLONE_ASK_PASSWORD": "false",
    "RCLONE_INPLACE": "true",
    "RCLONE_S3_NO_CHECK_BUCKET": "true",
    "RCLONE_SFTP_DISABLE_HASHCHECK": "true",
    "RCLONE_SFTP_SET_MODTIME": "false",
    "RCLONE_SFTP_SHELL_TYPE": "none",
}
_Result = TypeVar("_Result")


class Meter:
    """Counts and hashes the data of a stream."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the data so far, in hexadecimal."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Count and hash a chunk."""
        self.size += len(data)
        self._digest.update(data)

    def over(self, content: Stream, limit: float = math.inf) -> Stream:
        """Yield the content unchanged, while it is counted and hashed.

        :raises NotAuthenticError: the content is longer than the limit, in bytes.
        """
        try:
            for data in content:
                if self.size + len(data) > limit:
                    raise NotAuthenticError(f"the file has more than the expected {limit} bytes")
                self.add(data)
                yield data
        finally:
            content.close()


@dataclass(frozen=True)
class Remote:
    """The storage of off-site copies. The fields are the keys of ``offsite`` in ``backup.json``.

    :param remote: rclone's ``name:path``; no other host may store backups there.
    :param config: rclone's configuration file, which contains the secrets.
    :param recipients: a file with age recipients; if set, files are encrypted before they are sent.
    :param identity: a file with the age identity that decrypts them; better not kept on the host.
    :param bandwidth: rclone's ``--bwlimit``, such as ``10M``; empty for no limit.
    :param prune: whether to remove the copies of pruned backups; otherwise no copy is ever removed.
    """

    remote: str
    config: Path
    recipients: Path | None = None
    identity: Path | None = None
    bandwidth: str = ""
    prune: bool = False

    def __post_init__(self) -> None:
        """Refuse a remote that is not ``name:path``, because it might contain secrets.

        :raises BackupError: it is not.
        """
        if not _REMOTE.fullmatch(self.remote):
            # The message leaves the value out, because it may contain a password.
            raise BackupError(
                "offsite: `remote` must be name:path, where the name is a section of rclone's configuration"
            )

    @property
    def extension(self) -> str:
        """File name extension of the copies that are sent."""
        return AGE if self.recipients else ""

    def check(self) -> None:
        """Check the rclone configuration.

        :raises BackupError: others can read it, it lacks the section, or rclone would not verify an SFTP server.
        """
        _check_secret(self.config)
        found = configparser.RawConfigParser(strict=False)
        try:
            found.read_string(self.config.read_text(encoding="utf-8"))
        except (configparser.Error, ValueError):
            # The parser's message is left out, because it may quote a secret.
            raise BackupError(f"{self.config}: not an rclone configuration, or an encrypted one") from None
        name = self.remote.split(":")[0]
        if name not in found:
            raise BackupError(f"{self.config}: no section [{name}]")
        for section in found.values():
            if section.get("type") == "sftp" and "known_hosts_file" not in section:
                raise BackupError(
                    f"{self.config}: [{section.name}] has no `known_hosts_file`, so rclone would send backups to any "
                    "server that answers: set it"
                )

    def files(self) -> dict[str, int]:
        """Return the files of the remote with their sizes in bytes; none if the folder does not exist yet.

        :raises BackupError: the remote does not answer, or refuses.
        """
        self.check()
        try:
            listed = programs.run(
                self._command("lsjson", self.remote, "--files-only", "--no-modtime", "--no-mimetype"),
                _RCLONE_ENVIRONMENT,
            )
        except ProgramError as error:
            if error.code == _EXIT_NO_FOLDER:
                return {}
            raise
        return {entry["Name"]: entry["Size"] for entry in json.loads(listed)}

    def put(self, file: str, content: Callable[[], Stream], size: int) -> Meter:
        """Send a file and read it back; returns the size and hash of the file as stored.

        :param content: returns the content from its beginning; called again for a retry. If the stream raises, the
            remote gets no complete file.
        :param size: the approximate size in bytes.
        :raises BackupError: the file could not be sent, or differs when it is read back.
        """
        part = math.ceil(size / _S3_PARTS_MAX / (1 << 20))
        large = () if part <= _S3_PART_MIN else (f"--s3-chunk-size={part}Mi",)
        command = self._command("rcat", self._address(file), *large)

        def send() -> Meter:
            meter = Meter()
            _discard(programs.stream(command, _RCLONE_ENVIRONMENT, meter.over(self._encrypted(file, content()))))
            return meter

        sent, back = _retry(send), self.measure(file)
        if (sent.size, sent.sha256) != (back.size, back.sha256):
            raise BackupError(f"{file}: {self.remote} returns something else than what was sent")
        return back

    def measure(self, file: str) -> Meter:
        """Return the size and hash of a file as stored, without decrypting it.

        :raises BackupError: the file could not be read.
        """

        def read() -> Meter:
            meter = Meter()
            _discard(meter.over(self._download(file)))
            return meter

        return _retry(read)

    def read(self, file: str, take: Callable[[Stream], None]) -> Meter:
        """Read and decrypt a file; returns the size and hash of the file as stored.

        :param take: gets the content from its beginning; called again for a retry.
        :raises BackupError: the file could not be read, or is encrypted for another identity.
        :raises NotAuthenticError: the encrypted file was altered.
        """

        def attempt() -> Meter:
            meter = Meter()
            take(self._decrypted(file, meter.over(self._download(file))))
            return meter

        try:
            return _retry(attempt)
        except ProgramError as error:
            # age authenticates its input. Its messages about other problems contain the word "identity".
            if error.program != _AGE or "identity" in str(error):
                raise
            raise NotAuthenticError(f"{file}: {error}") from None

    def remove(self, file: str) -> None:
        """Remove a file.

        :raises BackupError: the file could not be removed.
        """
        programs.run(self._command("deletefile", self._address(file)), _RCLONE_ENVIRONMENT)

    def _download(self, file: str) -> Stream:
        return programs.stream(self._command("cat", self._address(file)), _RCLONE_ENVIRONMENT)

    def _encrypted(self, file: str, content: Stream) -> Stream:
        if not file.endswith(AGE):
            return content
        return programs.stream([_AGE, "--encrypt", "--recipients-file", str(self.recipients)], {}, content)

    def _decrypted(self, file: str, content: Stream) -> Stream:
        if not file.endswith(AGE):
            return content
        if self.identity is None:
            raise BackupError(f"{file} is encrypted: pass `--identity FILE` with the age identity that can decrypt it")
        _check_secret(self.identity)
        return programs.stream([_AGE, "--decrypt", "--identity", str(self.identity)], {}, content)

    def _address(self, file: str) -> str:
        return self.remote + file if self.remote.endswith((":", "/")) else f"{self.remote}/{file}"

    def _command(self, *words: str) -> list[str]:
        limit = (f"--bwlimit={self.bandwidth}",) if self.bandwidth else ()
        return [_RCLONE, *words, f"--config={self.config}", "--quiet", *_RCLONE_RETRY_FLAGS, *limit]


def _retry(action: Callable[[], _Result], left: int = _ATTEMPTS) -> _Result:
    """Run an action again if rclone failed; rclone cannot retry itself, because it can read the stream only once."""
    try:
        return action()
    except ProgramError as error:
        if error.program != _RCLONE or left == 1:
            raise
    time.sleep(_RETRY_DELAY)
    return _retry(action, left - 1)


def _discard(content: Stream) -> None:
    for _chunk in content:
        pass


def _check_secret(file: Path) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror}") from None
    if mode & 0o077:
        raise BackupError(
            f"{file}: other users can read its secrets (mode {mode:04o}): chmod 0600 it, and replace them"
        )
