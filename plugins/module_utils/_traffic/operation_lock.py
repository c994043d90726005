# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The lock of the current operation of a host: a lease with a fencing token, in one durable file."""

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


@dataclass(frozen=True)
class Owner:
    """The owner of an operation.

    :param name: for people.
    :param controller: the process on the controller, so that a later run there can see that it is dead.
    """

    name: str
    controller: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SlotRelease:
    """A slot and the release in it."""

    slot: str | None = None
    release: str | None = None


@dataclass(frozen=True)
class Operation:
    """A deploy, switch or rollback in progress. Times are seconds since boot, durations are seconds."""

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
    """The file with the current operation. Each change of it holds a kernel lock for a moment."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder = folder
        self._machine = machine
        self._file = folder / "operation.json"
        self._lock_file = folder / ".lock"
        self._depth = 0

    def current(self) -> Operation | None:
        """Return the current operation, if there is one.

        An unreadable file counts as no operation: the file is replaced by one rename, so no crash can damage it.
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

    def is_alive(self, operation: Operation) -> bool:
        """Whether the owner may still act: a process of this host, a build, or a controller with a lease."""
        machine = self._machine
        if operation.boot_id != machine.boot_id():
            return False
        if machine.now() < operation.lease_until or machine.alive(operation.pid, operation.pid_started):
            return True
        return operation.state == "building" and machine.building()

    def begin(self, kind: str, owner: Owner, generation: int, lease: float) -> Operation:
        """Record a new operation and return it.

        :param lease: seconds.
        :raises BusyError: another operation is in progress.
        """
        machine = self._machine
        pid, started = machine.process()
        with self.exclusive():
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
        """Make this process the holder; the previous holder fails at its next step.

        :raises LostError: the operation ended, or another process took it over.
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

    def is_held(self, operation: Operation) -> bool:
        """Whether the same process still holds the operation. All steps share the token, each step has its own pid."""
        current = self.current()
        return current is not None and _holder(current) == _holder(operation)

    def update(self, operation: Operation, **changes: Any) -> Operation:  # noqa: ANN401 (as dataclasses.replace has it)
        """Change the operation and return it.

        :raises LostError: the caller no longer holds it.
        """
        with self.holding(operation):
            changed = dataclasses.replace(operation, **changes)
            self._write(changed)
            return changed

    def end(self, operation: Operation) -> None:
        """Remove the operation.

        :raises LostError: the caller no longer holds it.
        """
        with self.holding(operation):
            self._file.unlink()
            durable.sync(self.folder)

    @contextlib.contextmanager
    def holding(self, operation: Operation) -> Iterator[None]:
        """Prevent other processes from taking over the operation.

        :raises LostError: another process already has.
        """
        with self.exclusive():
            if not self.is_held(operation):
                raise LostError(
                    f"{operation} was settled, because its time was over or its owner seemed dead. "
                    "See `panelctl history`, then start again."
                )
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the kernel lock, which ends with the process. Only for short steps."""
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
