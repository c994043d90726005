# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Which operation is at work on this host, and whose it is: a lease with a fencing token, in one durable file."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._host import durable
from .errors import BusyError, LostError
from .machine import Machine

_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Owner:
    """Who asked, for people, and the process on the controller, for a later run there to know that it is dead."""

    name: str
    controller: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SlotRelease:
    """A slot and the release in it."""

    slot: str | None = None
    release: str | None = None


@dataclass(frozen=True)
class Operation:
    """A deploy, switch or rollback at work. Times are seconds since boot, durations seconds."""

    generation: int
    kind: str
    token: str
    owner: Owner
    pid: int
    pid_started: int
    boot_id: str
    lease_until: float
    state: str
    state_since: float
    began: str
    source: SlotRelease = SlotRelease()
    target: SlotRelease = SlotRelease()
    durations: dict[str, float] = field(default_factory=dict)
    confirm_until: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} {self.generation}"
        if self.target.release:
            what += f" of {self.target.release}"
        return f"{what} by {self.owner.name}, begun {self.began}, now {self.state}"


class OperationLock:
    """The file that holds the operation at work. Every change of it is made under a short lock of the kernel's."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder = folder
        self._machine = machine
        self._file = folder / "operation.json"
        self._lock_file = folder / ".lock"
        self._depth = 0

    def current(self) -> Operation | None:
        """Return the operation at work, if any.

        A file that is no operation counts as none: it was written by one rename, so what broke it was no crash.
        """
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            content["owner"] = Owner(**content["owner"])
            content["source"] = SlotRelease(**content["source"])
            content["target"] = SlotRelease(**content["target"])
            return Operation(**content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None

    def alive(self, operation: Operation) -> bool:
        """Whether its owner may still be at work: a process of this host, a build, or a controller with a lease."""
        machine = self._machine
        if operation.boot_id != machine.boot_id():
            return False
        if machine.now() < operation.lease_until or machine.alive(operation.pid, operation.pid_started):
            return True
        return operation.state == "building" and machine.building()

    def begin(self, kind: str, owner: Owner, generation: int, lease: float) -> Operation:
        """Write down a new operation.

        Raises:
            BusyError: there is one already.
        """
        machine = self._machine
        pid, started = machine.process()
        with self.locked():
            if other := self.current():
                raise BusyError(str(other))
            operation = Operation(
                generation=max(generation, 1),
                kind=kind,
                token=secrets.token_hex(16),
                owner=owner,
                pid=pid,
                pid_started=started,
                boot_id=machine.boot_id(),
                lease_until=machine.now() + lease,
                state="locked",
                state_since=machine.now(),
                began=machine.utc_timestamp(),
            )
            self._write(operation)
            return operation

    def take_over(self, operation: Operation) -> Operation:
        """Make an operation this process' own; whoever had it finds out at its next step.

        Raises:
            LostError: it ended, or somebody else took it over.
        """
        pid, started = self._machine.process()
        return self.update(
            operation,
            token=secrets.token_hex(16),
            pid=pid,
            pid_started=started,
            boot_id=self._machine.boot_id(),
            lease_until=self._machine.now(),
        )

    def ours(self, operation: Operation) -> bool:
        """Whether it is still at work, and held by the same process: a token is all steps', a pid is one step's."""
        present = self.current()
        return present is not None and _holder(present) == _holder(operation)

    def update(self, operation: Operation, **changes: Any) -> Operation:  # noqa: ANN401 (as dataclasses.replace has it)
        """Change the operation.

        Raises:
            LostError: it is not the caller's any more.
        """
        with self.holding(operation):
            changed = dataclasses.replace(operation, **changes)
            self._write(changed)
            return changed

    def end(self, operation: Operation) -> None:
        """Remove the operation.

        Raises:
            LostError: it is not the caller's any more.
        """
        with self.holding(operation):
            self._file.unlink()
            durable.sync(self.folder)

    @contextlib.contextmanager
    def holding(self, operation: Operation) -> Iterator[None]:
        """Do something while nobody can take the operation away.

        Raises:
            LostError: somebody has.
        """
        with self.locked():
            if not self.ours(operation):
                raise LostError(
                    f"{operation} is not ours any more: it was settled, because its time was over or its owner "
                    f"seemed dead. See `panelctl history`, then start again."
                )
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the kernel's; it falls with the process. For steps that take no time."""
        if self._depth:
            yield
            return
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._depth = 1
            yield
        finally:
            self._depth = 0
            os.close(descriptor)

    def _write(self, operation: Operation) -> None:
        durable.write(self._file, json.dumps(dataclasses.asdict(operation), sort_keys=True) + "\n")


def _holder(operation: Operation) -> tuple[str, int, int, str]:
    return operation.token, operation.pid, operation.pid_started, operation.boot_id
