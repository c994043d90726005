# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random deploys, switches, crashes and reboots end with a healthy live release, and a correct history."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import switch, unattended
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.deploy import Deploy
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import RETIRE
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import BusyError, LostError, TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import Operation, OperationLock
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.switch import SwitchRequest
from fake_host import HEALTHY, MODES, PERSON, STEPS, Crash, Process, World, make_world
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

# The touch at which a process is killed, and the touch at which another process acts.
TOUCHES = st.tuples(st.sampled_from([False, False, True]), st.integers(1, 100)).map(lambda it: it[1] if it[0] else None)
INTRUDERS = st.sampled_from(["settle", "late settle", "rollback", "confirm", "abort", "switch", "retire"])


class Host(RuleBasedStateMachine):
    """One host, one controller at a time that deploys step by step, operators with panelctl, a timer, and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = make_world(healthy_passes=2, verify_seconds=0.5, healthy_timeout=3.0, websocket_path="/ws")
        self.world.look = self.look
        self.count = 0
        self.release = self.token = ""  # of the current deploy
        self.steps: list[str] = []  # its remaining steps
        self.lost: set[str] = set()  # tokens of ended deploys
        self.seen: tuple[str, str] | None = None
        self.intruder: tuple[int, str] | None = None
        self.problems: list[str] = []
        self.forced = False
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(mock.patch.object(OperationLock, "_write", self.write))

    def teardown(self) -> None:
        try:
            if not self.problems:
                self.settle()
        finally:
            self.patches.close()
            self.world.close()

    # --- rules --------------------------------------------------------------------------------------------------------

    @initialize(releases=st.integers(0, 2))
    def begin(self, releases: int) -> None:
        if releases:
            self.world.serve("1-good")
            self.seen = self.world.live()
        if releases > 1:
            self.world.deploy("2-good")
        self.count = releases

    @rule(
        mode=st.sampled_from(["good", "good", "good", *MODES]),
        steps=st.sampled_from([0, 3, 5, 6, 6, 6]),
        kill_at=TOUCHES,
        intruder=TOUCHES,
        who=INTRUDERS,
        aborts=st.booleans(),
    )
    def deploy(self, mode: str, steps: int, **fate: Any) -> None:
        if self.steps and self.at_work():
            with pytest.raises(BusyError):
                self.world.step("lock", "", "")
            return
        self.forget()
        self.count += 1
        with self.mortal(), contextlib.suppress(TrafficError):
            self.token = self.world.step("lock", "", "", kill_at=None if steps else fate["kill_at"])
            self.release, self.steps = f"{self.count}-{mode}", list(STEPS[1:])
        self.take_steps(steps, **fate)

    @precondition(lambda self: self.steps)
    @rule(steps=st.integers(1, 6), kill_at=TOUCHES, intruder=TOUCHES, who=INTRUDERS, aborts=st.booleans())
    def go_on(self, **how: Any) -> None:
        self.take_steps(**how)

    @rule()
    def controller_dies(self) -> None:
        self.forget()

    @rule(
        kind=st.sampled_from(["switch", "rollback"]),
        where=st.sampled_from(switch.TARGETS),
        force=st.booleans(),
        confirm=st.booleans(),
        kill_at=TOUCHES,
        intruder=TOUCHES,
        who=INTRUDERS,
    )
    def move(self, kill_at: int | None, intruder: int | None, who: str, where: str, **wanted: Any) -> None:
        # With --force a healthy release is enough, even if its database may not be migrated.
        self.forced = self.forced or wanted["force"]
        with self.acting(kill_at, intruder, who) as engine:
            switch.switch(engine, SwitchRequest(target=where, **wanted), PERSON, wait=1.0)

    @rule(kill_at=TOUCHES)
    def confirm(self, kill_at: int | None) -> None:
        with self.acting(kill_at) as engine:
            switch.confirm(engine)

    @precondition(lambda self: self.world.watched)
    @rule(kill_at=TOUCHES, intruder=TOUCHES, who=INTRUDERS)
    def timer(self, kill_at: int | None, intruder: int | None, who: str) -> None:
        with self.acting(kill_at, intruder, who) as engine:
            engine.settle()

    @precondition(lambda self: self.world.retiring and not self.world.operation())
    @rule(kill_at=TOUCHES, intruder=TOUCHES, who=INTRUDERS)
    def retire(self, kill_at: int | None, intruder: int | None, who: str) -> None:
        slot = min(self.world.retiring)
        with self.acting(kill_at, intruder, who) as engine:
            unattended.retire(engine, slot)
        self.world.retiring.discard(slot)

    @rule(seconds=st.sampled_from([1.0, 40.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(kill_at=TOUCHES)
    def reboot(self, kill_at: int | None) -> None:
        try:
            self.world.reboot(kill_at=kill_at)
        except Crash:
            self.world.reboot()

    @rule()
    def nginx_comes_or_goes(self) -> None:
        self.world.nginx = not self.world.nginx

    @rule(number=st.integers(0, 2))
    def streams(self, number: int) -> None:
        self.world.connections = {"blue": number, "green": 2 - number}

    @precondition(lambda self: self.world.live())
    @rule()
    def the_live_release_turns_bad(self) -> None:
        self.world.modes[self.world.live()[1]] = "breaks"

    @precondition(lambda self: self.lost - {self.token})
    @rule(step=st.sampled_from([*STEPS[1:], "abort"]))
    def somebody_too_late(self, step: str) -> None:
        token = min(self.lost)
        before = self.everything()
        if (operation := self.world.operation()) and operation.token == token:
            return  # not settled yet, so the step may continue
        if step == "abort":
            with self.world.process() as engine:
                assert not Deploy(engine, token).abort("too late")
        else:
            with pytest.raises(LostError), self.world.process() as engine:
                getattr(Deploy(engine, token), step)(*(["9-good"] if step == "prepare" else []))
        assert self.everything() == before

    @rule()
    def settle(self) -> None:
        """Leave the host alone, then check it."""
        self.forget()
        self.world.pass_time(400.0)
        self.world.run_retiring()
        operation = self.world.operation()
        if operation is not None:
            # A retirement touches no traffic; the next command finds that its owner is dead.
            assert operation.kind == RETIRE
            with self.world.process() as engine:
                engine.settle()
        assert self.world.operation() is None
        assert not self.world.watched
        live = self.world.live()
        records = self.world.records()
        generations = [record["generation"] for record in records]
        assert generations == sorted(set(generations))
        moved = [record for record in records if record["result"] in ("confirmed", "reverted")]
        if moved:
            place = moved[-1]["target" if moved[-1]["result"] == "confirmed" else "source"]
            assert live == (place["slot"], place["release"]), moved[-1]
        if live:
            assert self.world.serves(), live

    def at_work(self) -> bool:
        """Whether the controller still holds the current deploy, and no other process may settle it."""
        operation = self.world.operation()
        if operation is None or operation.token != self.token:
            return False
        with self.world.process() as engine:
            return not engine.stale(operation)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Forget the controller, which died."""
        if self.token:
            self.lost.add(self.token)
        self.token, self.steps = "", []

    def take_steps(self, steps: int, kill_at: int | None, intruder: int | None, who: str, aborts: bool) -> None:
        """Continue the deploy; its last step here may be killed."""
        for left in reversed(range(min(steps, len(self.steps)))):
            step = self.steps.pop(0)
            reason = ""
            try:
                with self.between(None if left else intruder, who):
                    self.world.step(step, self.token, self.release, kill_at=None if left else kill_at)
            except Crash:
                reason = "its connection broke"
            except LostError:
                self.forget()
                return
            except TrafficError as error:
                reason = str(error)
            if reason:
                if aborts:
                    with self.mortal():
                        self.world.step("abort", self.token, reason)
                self.forget()
                return
        if not self.steps:
            self.forget()

    @contextlib.contextmanager
    def acting(self, kill_at: int | None, intruder: int | None = None, who: str = ""):
        """Run a block as a process that may be killed or interrupted by another process."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.mortal())
            stack.enter_context(contextlib.suppress(TrafficError))
            stack.enter_context(self.between(intruder, who))
            yield stack.enter_context(self.world.process(kill_at=kill_at))

    @contextlib.contextmanager
    def mortal(self):
        with contextlib.suppress(Crash):
            yield

    @contextlib.contextmanager
    def between(self, touch: int | None, who: str):
        """Let another process act at a touch of this one, unless this one holds the kernel lock."""
        self.intruder = (touch, who) if touch else None
        try:
            yield
        finally:
            self.intruder = None

    @invariant()
    def nothing_was_wrong_on_the_way(self) -> None:
        assert not self.problems

    def look(self, process: Process) -> None:
        """Check what must be true at any moment. The error is also kept, because a process may ignore it."""
        try:
            self.look_closely(process)
        except AssertionError as error:
            self.problems.append(str(error))
            raise

    def look_closely(self, process: Process) -> None:
        live = self.world.live()
        if live:
            assert (self.world.settings.live_link / "release/release.json").exists()
            mode = live[1].rpartition("-")[2]
            assert mode in HEALTHY or (mode == "migration" and self.forced), f"{live} got traffic"
        if live != self.seen:
            operation = process.engine.operation_lock.current() if process.engine else None
            assert operation is not None, f"{live} without an operation"
            assert operation.pid == process.pid, "who moved the traffic does not own the operation"
            self.seen = live
        if self.intruder and process.touches >= self.intruder[0] and not _holds(process):
            who, self.intruder = self.intruder[1], None
            with contextlib.suppress(TrafficError):
                self.intrude(who)

    def intrude(self, who: str) -> None:
        if who == "late settle":
            self.world.clock += 400.0
        with self.world.process() as engine:
            if "settle" in who:
                engine.settle()
            elif who == "confirm":
                switch.confirm(engine)
            elif who == "abort" and self.token:
                Deploy(engine, self.token).abort("its connection broke")
            elif who in ("switch", "rollback"):
                switch.switch(engine, SwitchRequest(who), PERSON, wait=0.0)

    @property
    def write(self) -> Callable[[OperationLock, Operation], None]:
        """Replace `OperationLock._write`, to check that the process owns the operation that it writes."""

        def write(lock: OperationLock, operation: Operation) -> None:
            if operation.pid != lock._machine.process()[0]:
                self.problems.append(f"a process writes an operation that another one holds: {operation}")
            _write(lock, operation)

        return write

    def everything(self) -> Any:
        base = self.world.root / "base"
        links = {str(link): str(link.readlink()) for link in base.rglob("*") if link.is_symlink()}
        return links, self.world.operation(), self.world.records(), sorted(self.world.services), self.world.watched


_write = OperationLock._write


def _holds(process: Process) -> bool:
    return process.engine is not None and process.engine.operation_lock._depth > 0


def test_any_order_of_commands_crashes_and_reboots_ends_with_a_healthy_release() -> None:
    run_state_machine_as_test(
        Host,
        settings=settings(
            max_examples=40,
            report_multiple_bugs=False,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
