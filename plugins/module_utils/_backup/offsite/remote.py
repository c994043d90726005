# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A folder elsewhere, by rclone, and what goes there by age: both stream, so that neither needs room on this disk.

Secrets are in files whose names are all that the programs' arguments say.
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

#: What the name of an encrypted file ends with.
AGE = ".age"
_RCLONE, _AGE = "rclone", "age"
_REMOTE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+@ -]*):[^\0\n]*")
_EXIT_NO_FOLDER = 3  # rclone's exit status
_ATTEMPTS = 3
_RETRY_DELAY = 2.0  # seconds
_S3_PART_MIN = 5  # MiB; S3 takes 10,000 parts, and rclone cannot know how many a stream will have
_S3_PARTS_MAX = 9_000

_RCLONE_RETRY_FLAGS = ("--contimeout=20s", "--timeout=2m", "--retries=3", "--low-level-retries=3")
# In the environment, because not every release knows every one of them as an argument. A remote that lets nobody
# change or rename what is there has to do, and rclone is not to write what it found out into its configuration.
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
    """Counts and digests what goes by."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = sha256()

    @property
    def sha256(self) -> str:
        """Of all that went by, in hexadecimal."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Count and digest a piece."""
        self.size += len(data)
        self._digest.update(data)

    def over(self, content: Stream, limit: float = math.inf) -> Stream:
        """Pass content on.

        :raises NotAuthenticError: there are more bytes than the limit.
        """
        try:
            for data in content:
                if self.size + len(data) > limit:
                    raise NotAuthenticError(f"there is more than the {limit} bytes that there should be")
                self.add(data)
                yield data
        finally:
            content.close()


@dataclass(frozen=True)
class Remote:
    """Where copies go; the names are those of the keys of ``offsite`` in ``backup.json``.

    :param remote: as rclone has it, ``name:path``; nobody else's backups may go there.
    :param config: rclone's configuration, which holds the secrets.
    :param recipients: a file of age's recipients; where there is one, files are encrypted on their way.
    :param identity: a file of age's identity, to read them; better kept elsewhere than on the host.
    :param bandwidth: rclone's ``--bwlimit``, such as ``10M``; empty for no limit.
    :param prune: whether what was pruned here goes there too; else nothing is ever removed.
    """

    remote: str
    config: Path
    recipients: Path | None = None
    identity: Path | None = None
    bandwidth: str = ""
    prune: bool = False

    def __post_init__(self) -> None:
        """Refuse what would have to hold its secrets itself.

        :raises BackupError: it is not ``name:path``.
        """
        if not _REMOTE.fullmatch(self.remote):
            # It may hold a password.
            raise BackupError("offsite: `remote` has to be name:path, where the name is a section of rclone's config")

    @property
    def extension(self) -> str:
        """What the names of files that go there end with."""
        return AGE if self.recipients else ""

    def check(self) -> None:
        """Refuse a configuration that gives secrets away.

        :raises BackupError: others can read it, it has no such section, or a server could be anybody.
        """
        _check_secret(self.config)
        found = configparser.RawConfigParser(strict=False)
        try:
            found.read_string(self.config.read_text(encoding="utf-8"))
        except (configparser.Error, ValueError):
            # What is wrong with it might quote it.
            raise BackupError(f"{self.config}: this is no configuration of rclone, or an encrypted one") from None
        name = self.remote.split(":")[0]
        if name not in found:
            raise BackupError(f"{self.config}: there is no section [{name}]")
        for section in found.values():
            if section.get("type") == "sftp" and "known_hosts_file" not in section:
                raise BackupError(
                    f"{self.config}: [{section.name}] has no `known_hosts_file`, so that rclone would give backups to "
                    "whoever answers"
                )

    def files(self) -> dict[str, int]:
        """Return the files that are there, with their sizes; none where the folder is not there yet.

        :raises BackupError: it does not answer, or refuses.
        """
        self.check()
        try:
            told = programs.run(
                self._command("lsjson", self.remote, "--files-only", "--no-modtime", "--no-mimetype"),
                _RCLONE_ENVIRONMENT,
            )
        except ProgramError as error:
            if error.code == _EXIT_NO_FOLDER:
                return {}
            raise
        return {entry["Name"]: entry["Size"] for entry in json.loads(told)}

    def put(self, file: str, content: Callable[[], Stream], size: int) -> Meter:
        """Write a file, and read it back; gives what it is there.

        :param content: gives it, from its beginning, as often as it takes; what it raises keeps the file from ending.
        :param size: about how many bytes.
        :raises BackupError: it could not be written, or what came back is something else.
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
            raise BackupError(f"{file}: what {self.remote} gives back of it is not what was sent")
        return back

    def measure(self, file: str) -> Meter:
        """Read a file as it is there, and say what it is.

        :raises BackupError: it could not be read.
        """

        def read() -> Meter:
            meter = Meter()
            _discard(meter.over(self._download(file)))
            return meter

        return _retry(read)

    def read(self, file: str, take: Callable[[Stream], None]) -> Meter:
        """Read a file, decrypted; gives what it is there.

        :param take: is given the content, from its beginning, as often as it takes.
        :raises BackupError: it could not be read, or is for another identity.
        :raises NotAuthenticError: it is not what was encrypted.
        """

        def attempt() -> Meter:
            meter = Meter()
            take(self._decrypted(file, meter.over(self._download(file))))
            return meter

        try:
            return _retry(attempt)
        except ProgramError as error:
            # It authenticates what it reads, and complains of all but that in terms of the identity.
            if error.program != _AGE or "identity" in str(error):
                raise
            raise NotAuthenticError(f"{file}: {error}") from None

    def remove(self, file: str) -> None:
        """Remove a file.

        :raises BackupError: it could not be removed.
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
            raise BackupError(f"{file}: it is encrypted; `--identity FILE` says where the identity is that can read it")
        _check_secret(self.identity)
        return programs.stream([_AGE, "--decrypt", "--identity", str(self.identity)], {}, content)

    def _address(self, file: str) -> str:
        return self.remote + file if self.remote.endswith((":", "/")) else f"{self.remote}/{file}"

    def _command(self, *words: str) -> list[str]:
        limit = (f"--bwlimit={self.bandwidth}",) if self.bandwidth else ()
        return [_RCLONE, *words, f"--config={self.config}", "--quiet", *_RCLONE_RETRY_FLAGS, *limit]


def _retry(action: Callable[[], _Result], left: int = _ATTEMPTS) -> _Result:
    """Do something, and again where the line broke: rclone itself cannot, because it has seen the stream once."""
    try:
        return action()
    except ProgramError as error:
        if error.program != _RCLONE or left == 1:
            raise
    time.sleep(_RETRY_DELAY)
    return _retry(action, left - 1)


def _discard(content: Stream) -> None:
    for _ in content:
        pass


def _check_secret(file: Path) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror}") from None
    if mode & 0o077:
        raise BackupError(f"{file}: others may read its secrets (mode {mode:04o}); chmod 0600 it, then replace them")
