# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory over real folders, links and sockets; tests control its clock, boots, processes and services.

`World` is the machine that all share, `Process` one process on it, which is what the package takes for its `Machine`.
A process can be killed at its n-th touch of the world: a call of the machine, or a change on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import unattended
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.deploy import Deploy
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import Engine
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError, UnhealthyError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import Operation, Owner
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.probe import READY, Answer
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings

PATIENCE = 10_000  # touches of one process
TIMER = 5.0  # seconds between two runs of the host's timer
CONTROLLER = Owner("ann@laptop")
PERSON = Owner("bob")

#: Behaviour of a release, by the last word of its name. Only the first two ever become healthy.
MODES = ("good", "breaks", "dies", "loops", "sick", "liar", "migration")
HEALTHY = ("good", "breaks")


# The unpatched functions, for changes by the host itself, which are no touches of a process.
_OPEN, _WRITE = os.open, os.write
_SYMLINK, _RENAME, _UNLINK = Path.symlink_to, Path.rename, Path.unlink


class Crash(BaseException):
    """The process was killed; its further actions have no effect."""


@dataclass
class Service:
    """A running slot: its release, and its listening socket."""

    release: str
    mode: str
    listener: socket.socket


@dataclass
class World:
    """One host. Times are seconds since its boot."""

    root: Path
    settings: Settings
    clock: float = 100.0
    boots: int = 1
    next_pid: int = 1000
    pids: dict[int, int] = field(default_factory=dict)  # pid: start time
    services: dict[str, Service] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)  # release: its behaviour, if it changed
    connections: dict[str, int] = field(default_factory=dict)
    nginx: bool = True
    building: bool = False
    watched: bool = False
    settling: bool = False
    timer_at: float = 0.0
    retiring: set[str] = field(default_factory=set)
    told: list[dict[str, Any]] = field(default_factory=list)
    migrated: list[str] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    backup_fails: bool = False
    look: Callable[[Process], None] = lambda process: None  # called at every touch of the world

    # --- actions of a test --------------------------------------------------------------------------------------------

    def spawn(self, *, kill_at: int | None = None) -> Process:
        """Begin a process."""
        self.next_pid += 1
        self.pids[self.next_pid] = int(self.clock * 100)
        return Process(self, self.next_pid, kill_at)

    @contextlib.contextmanager
    def process(self, *, kill_at: int | None = None) -> Iterator[Engine]:
        """Run a block as a separate process that ends with it; a killed process raises `Crash`."""
        process = self.spawn(kill_at=kill_at)
        try:
            with on_disk(process):
                process.engine = Engine(self.settings, process)
                yield process.engine
        finally:
            self.pids.pop(process.pid, None)

    def add_release(self, release: str) -> None:
        """Add a release, as the module `release` does."""
        folder = self.root / "base/releases" / release
        folder.mkdir(exist_ok=True)
        (folder / "release.json").write_text("{}")

    def write_env(self, slot: str, release: str) -> None:
        """Write the settings of a slot, as the role app does between `prepare` and `migrate`."""
        self.settings.slot_env(slot).write_text(f'AAPANEL_RELEASE="{release}"\n')

    def serve(self, release: str) -> None:
        """Make a release live in blue, as after an old deploy."""
        folder = self.settings.slot_dir("blue")
        folder.mkdir(parents=True)
        (folder / "release").symlink_to(f"../../releases/{release}")
        (folder / "sock").symlink_to(self.settings.slot_socket("blue"))
        self.add_release(release)
        self.write_env("blue", release)
        Process(self, 0).start("blue")
        self.settings.live_link.symlink_to("slots/blue")

    def reboot(self, *, kill_at: int | None = None) -> None:
        """Reboot: lose all state that is not on disk, and start the live slot."""
        for slot in list(self.services):
            self.halt(slot)
        self.pids.clear()
        self.retiring.clear()
        self.watched = self.building = self.settling = False
        self.timer_at = 0.0
        self.boots += 1
        self.clock = 10.0
        with self.process(kill_at=kill_at) as engine:
            slot = unattended.boot(engine)
        if slot:
            with contextlib.suppress(UnhealthyError):
                self.spawn().start(slot)

    def halt(self, slot: str) -> None:
        """Stop a service."""
        if service := self.services.pop(slot, None):
            service.listener.close()
            _UNLINK(self.settings.slot_socket(slot))

    def fire_timer(self) -> str:
        """Settle, as the timer of the host does, if it is on."""
        if not self.watched:
            return ""
        self.timer_at = self.clock + TIMER
        with self.process() as engine:
            return engine.settle()

    def wake_timer(self) -> None:
        """Run the timer if it is due, and its last run has ended."""
        if self.clock >= self.timer_at and not self.settling:
            self.settling = True
            try:
                with contextlib.suppress(TrafficError):
                    self.fire_timer()
            finally:
                self.settling = False

    def run_retiring(self) -> None:
        """Run all retirements to their end."""
        while self.retiring:
            slot = min(self.retiring)
            with self.process() as engine:
                unattended.retire(engine, slot)
            self.retiring.discard(slot)

    def pass_time(self, seconds: float) -> None:
        """Let time pass with the timer running."""
        end = self.clock + seconds
        while self.clock < end:
            self.clock = min(end, self.clock + TIMER)
            self.wake_timer()

    def deploy(self, release: str, *, stop_after: str = "", kill_at: int | None = None) -> Deploy:
        """Deploy as the playbook does, with one process per step, and `abort` after an error.

        :param stop_after: the step after which the controller is killed.
        """
        token = ""
        for step in STEPS:
            try:
                token = self.step(step, token, release, kill_at=kill_at)
            except TrafficError as error:
                self.step("abort", token, str(error))
                raise
            if step == stop_after:
                break
        return Deploy(Engine(self.settings, self.spawn()), token)

    def step(self, step: str, token: str, release: str, *, kill_at: int | None = None) -> str:
        """Take one step of a deploy in a new process, and return the token. For `abort`, `release` is the reason."""
        with self.process(kill_at=kill_at) as engine:
            deploy = Deploy(engine, token)
            if step == "lock":
                deploy.lock(CONTROLLER)
            elif step == "abort":
                deploy.abort(release)
            elif step == "prepare":
                self.add_release(release)
                operation = deploy.prepare(release)
                self.write_env(str(operation.target.slot), release)
            else:
                getattr(deploy, step)()
            return deploy.token

    # --- observations of a test ---------------------------------------------------------------------------------------

    def live(self) -> tuple[str, str] | None:
        """Return the live slot and its release, as the links name them."""
        link = self.settings.live_link
        if not link.is_symlink():
            return None
        return link.readlink().name, (link / "release").readlink().name

    def serves(self) -> bool:
        """Whether the socket for nginx accepts connections."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.root / "base/live/sock")) == 0

    def operation(self) -> Operation | None:
        """Return the current operation."""
        return Engine(self.settings, Process(self, 0)).operation_lock.current()

    def operation_state(self) -> str:
        """Return the state of the current operation; empty without one."""
        operation = self.operation()
        return operation.state if operation else ""

    def records(self) -> list[dict[str, Any]]:
        """Return the history records; an incomplete line is skipped."""
        file = self.settings.state_dir / "journal.jsonl"
        records = []
        for line in file.read_text().split("\n") if file.exists() else []:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return records

    def mode(self, release: str) -> str:
        """Return the current behaviour of a release."""
        return self.modes.get(release) or release.rpartition("-")[2]

    def close(self) -> None:
        """Remove the host."""
        for slot in list(self.services):
            self.halt(slot)
        shutil.rmtree(self.root)


STEPS = ("lock", "build", "prepare", "migrate", "start", "switch", "confirm")


def make_world(**changes: Any) -> World:
    """Create a host without a deploy. Its path is short, because the path of a socket has at most 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="aap"))
    for folder in ("base/releases", "etc", "data", "run"):
        (root / folder).mkdir(parents=True)
    settings = {
        "base_dir": root / "base",
        "config_dir": root / "etc",
        "data_dir": root / "data",
        "run_dir": root / "run",
    }
    return World(root, Settings(**settings | changes))  # type: ignore[arg-type]


class Process:
    """A process on a `World`; each public method is one touch."""

    def __init__(self, world: World, pid: int, kill_at: int | None = None) -> None:
        self.world = world
        self.pid = pid
        self.touches = 0
        self.dead = False
        self.engine: Engine | None = None
        self._kill_at = kill_at

    def touch(self, *, alone: bool = False) -> None:
        """Die here if planned; a dead process does nothing.

        :param alone: no other process can act at this touch.
        """
        if self.dead:
            raise Crash
        self.touches += 1
        assert self.touches < PATIENCE, "it never ends"
        if not alone:
            self.world.look(self)
        if self.touches == self._kill_at:
            self.dead = True
            self.world.pids.pop(self.pid, None)
            raise Crash

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Touch the world before and after the block."""
        self.touch()
        yield
        self.touch()

    def now(self) -> float:
        return self.world.clock

    def utc_timestamp(self) -> str:
        return f"boot {self.world.boots}, second {self.world.clock:g}"

    def boot_id(self) -> str:
        return f"boot-{self.world.boots}"

    def process(self) -> tuple[int, int]:
        return self.pid, self.world.pids.get(self.pid, 0)

    def alive(self, pid: int, started: int) -> bool:
        return self.world.pids.get(pid) == started

    def building(self) -> bool:
        return self.world.building

    def logs(self, slot: str) -> str:
        return f"(what {slot} said)"

    def sleep(self, seconds: float) -> None:
        with self.around():
            self.world.clock += seconds
            self.world.wake_timer()

    def start(self, slot: str) -> None:
        with self.around():
            self.world.halt(slot)
            # It reports the release of its settings, and runs the release of its link.
            release = self._release_of(slot)
            mode = self.world.mode(release)
            if mode == "dies":
                raise UnhealthyError(f"slot {slot} did not start")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.world.settings.slot_socket(slot)))
            listener.listen(4096)
            self.world.services[slot] = Service(release, mode, listener)

    def stop(self, slot: str) -> None:
        with self.around():
            self.world.halt(slot)

    def backup(self, name: str) -> None:
        with self.around():
            if self.world.backup_fails:
                raise UnhealthyError("the backup failed")
            self.world.backups.append(name)

    def migrate(self, slot: str) -> None:
        with self.around():
            release = self._release_of(slot)
            if self.world.mode(release) == "migration":
                raise UnhealthyError("the migration failed")
            self.world.migrated.append(release)

    def running(self, slot: str) -> bool:
        return slot in self.world.services

    def crashed(self, slot: str) -> bool:
        service = self.world.services.get(slot)
        return service is not None and self.world.mode(service.release) == "loops"

    def watch(self, on: bool) -> None:
        with self.around():
            self.world.watched = on

    def retire(self, slot: str, on: bool) -> None:
        with self.around():
            (self.world.retiring.add if on else self.world.retiring.discard)(slot)

    def ready(self, slot: str) -> Answer:
        with self.around():
            service = self.world.services.get(slot)
            mode = self.world.mode(service.release) if service else "down"
            if service is None or mode == "loops":
                return Answer(0, text="connection refused")
            if mode == "sick":
                return Answer(503, service.release, slot, "database: no")
            return Answer(200, "another-release" if mode == "liar" else service.release, slot)

    def websocket(self, slot: str, path: str) -> Answer:
        with self.around():
            service = self.world.services.get(slot)
            return Answer(101 if service and path == "/ws" else 404, service and service.release, slot)

    def edge(self, path: str) -> Answer:
        with self.around():
            if not self.world.nginx:
                return Answer(0, text="connection refused")
            if path != READY and self.world.settings.maintenance_file.exists():
                return Answer(503, text="back soon")
            live = self.world.live()
            service = self.world.services.get(live[0]) if live else None
            if live is None or service is None:
                return Answer(502, text="bad gateway")
            bad = self.world.mode(service.release) != "good"
            return Answer(500 if bad else 200, service.release, live[0])

    def uptime(self, slot: str) -> float | None:
        return 90_061.0 if slot in self.world.services else None

    def connections(self, slot: str) -> int:
        return self.world.connections.get(slot, 0) if slot in self.world.services else 0

    def notify(self, record: Any) -> None:
        with self.around():
            self.world.told.append(dict(record))

    def _release_of(self, slot: str) -> str:
        link = (self.world.settings.slot_dir(slot) / "release").resolve(strict=True).name
        told = self.world.settings.slot_env(slot).read_text().partition('"')[2].partition('"')[0]
        assert link == told, f"slot {slot} was started with the code of {link} and the settings of {told}"
        return link


@contextlib.contextmanager
def on_disk(process: Process) -> Iterator[None]:
    """Make each change on disk a touch of the process; a kill can cut a write in two."""

    def touching(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            with process.around():
                return change(*arguments, **options)

        return wrapped

    def write(descriptor: int, data: bytes) -> int:
        process.touch()
        half = len(data) // 2
        _WRITE(descriptor, data[:half])
        process.touch(alone=True)
        return half + _WRITE(descriptor, data[half:])

    def fsync(descriptor: int) -> None:
        process.touch()

    with (
        mock.patch("os.open", touching(_OPEN)),
        mock.patch("os.write", write),
        mock.patch("os.fsync", fsync),
        mock.patch.object(Path, "symlink_to", touching(_SYMLINK)),
        mock.patch.object(Path, "rename", touching(_RENAME)),
        mock.patch.object(Path, "unlink", touching(_UNLINK)),
    ):
        yield
