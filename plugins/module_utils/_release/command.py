# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Run the commands of a build, and mask credentials in their output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import ReleaseError

TAIL_LINES = 30
MASK = "***"
_MIN_SECRET_LENGTH = 6
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>[^\s/@]+)@")
_SECRET_NAME = re.compile(r"TOKEN|PASS|SECRET|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


def split_credentials(url: str) -> tuple[str, str, str]:
    """Split the user name and password from a URL (RFC 3986, section 3.2.1).

    :returns: the URL without them, the decoded user, the decoded password. A user without a password stays in an
        ``ssh://`` URL, where it is part of the address and not secret.
    """
    match = _USERINFO.match(url)
    if not match or (match["scheme"].startswith("ssh") and ":" not in match["userinfo"]):
        return url, "", ""
    user, _colon, password = match["userinfo"].partition(":")
    bare = match["scheme"] + url[match.end() :]
    return bare, urllib.parse.unquote(user), urllib.parse.unquote(password)


def secrets_in(text: str) -> set[str]:
    """Return the credentials in the URLs of a text, as written and decoded."""
    found: set[str] = set()
    for match in _USERINFO.finditer(text):
        user, colon, password = match["userinfo"].partition(":")
        # Without a colon, the user may be an access token (https) or an account name (ssh).
        value = password if colon else user
        if not match["scheme"].startswith("ssh") or colon:
            found |= {value, urllib.parse.unquote(value)}
    return found


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """Return the secret values of an environment: credentials in URLs, and values whose names suggest a secret.

    Short values such as ``1`` are excluded, because masking them would mask unrelated text in the result.
    """
    found = set().union(*(secrets_in(value) for value in environment.values())) if environment else set()
    found |= {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    return {value for value in found if len(value) >= _MIN_SECRET_LENGTH}


class Masker:
    """Masks credentials in a text: those of all URLs, and the given secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first: a secret that is part of another must not leave the rest of that visible.
        self._secrets = sorted({value for value in secrets if len(value) >= _MIN_SECRET_LENGTH}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with masked credentials."""
        masked = _USERINFO.sub(self._userinfo, text)
        for secret in self._secrets:
            masked = masked.replace(secret, MASK)
        return masked

    @staticmethod
    def _userinfo(match: re.Match[str]) -> str:
        if match["scheme"].startswith("ssh") and ":" not in match["userinfo"]:
            return match[0]
        return f"{match['scheme']}{MASK}@"


class Runner:
    """Runs the commands of one build, each in its own process group, with a time limit and a masked log.

    :param environment: the complete environment of the commands.
    :param timeout: seconds that one command may take.
    :param mask: applied to the log and to errors.
    :param log: receives all output; None discards it.
    :param keep_open: descriptors that the commands inherit. The build lock is one: commands of a killed build keep it
        held until they end, so they cannot interfere with the next build.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        timeout: int,
        mask: Masker,
        log: IO[str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.environment = dict(environment)
        self.timeout = timeout
        self.mask = mask
        self._log = log
        self._keep_open = tuple(keep_open)

    def note(self, line: str) -> None:
        """Write one line to the log."""
        if self._log:
            self._log.write(self.mask(line.rstrip("\n")) + "\n")
            self._log.flush()

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        extra: Mapping[str, str] | None = None,
        identity: tuple[int, int, list[int]] | None = None,
        accept: Sequence[int] = (0,),
    ) -> list[str]:
        """Run a command and wait for it.

        :param extra: additional environment for this command.
        :param identity: user ID, group ID and supplementary groups to run as; needs root.
        :param accept: exit statuses that count as success.
        :returns: the unmasked lines of its output, including standard error.
        :raises ReleaseError: it cannot be started, fails, or exceeds the time limit; the output in the error is masked.
        """
        shown = self.mask(shlex.join(argv))
        self.note(f"$ {shown}")
        uid, gid, groups = identity or (None, None, None)
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._keep_open,
                user=uid,
                group=gid,
                extra_groups=groups,
            )
        except OSError as exc:
            raise ReleaseError(
                f"{argv[0]} cannot be started: {exc.strerror or exc}. Check that it is installed and executable.",
                command=shown,
                output=[str(exc)],
            ) from exc
        lines: list[str] = []
        reader = threading.Thread(target=self._read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            code = process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"{Path(argv[0]).name} was stopped after {self.timeout} s; raise `timeout` if it needs more time.",
                command=shown,
                output=self._tail(lines),
            ) from None
        finally:
            _kill_group(process)
            # A grandchild that left the group may keep the pipe open; do not wait for it.
            reader.join(5)
        if code not in accept:
            ended = f"exit status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
            raise ReleaseError(
                f"{Path(argv[0]).name} failed ({ended}); see `output`.", command=shown, output=self._tail(lines)
            )
        return lines

    def _read(self, stream: IO[bytes] | None, lines: list[str]) -> None:
        if stream is None:
            return
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                lines.append(line)
                self.note(line)

    def _tail(self, lines: Sequence[str]) -> list[str]:
        return [self.mask(line) for line in lines[-TAIL_LINES:]]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the remaining processes of a command's process group, including the command."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # The group has ended, or its processes run as another user (`identity`) and the caller is not root.
        process.kill()
    process.wait()
