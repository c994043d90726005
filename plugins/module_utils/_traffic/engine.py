# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The state machine: locked, building, prepared, migrated, started, healthy, switching, verified, confirmed.

What ends before `switching` touched no traffic. What ends after it goes back, unless it was confirmed. A state is
written down before a step that others can see, so that whoever comes after a crash knows what may have happened; what
did happen is observed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from .._host import durable
from . import history, probe
from .errors import BusyError, LostError, RefusedError, TrafficError, UnhealthyError
from .history import ABANDONED, CONFIRMED, FAILED, REVERTED, History
from .machine import Machine
from .observe import Traffic, live_slot, observe, read_slot
from .operation_lock import Operation, OperationLock, Owner, SlotRelease
from .probe import Answer
from .settings import Settings

#: An operation that only keeps others away: nothing to journal, nothing to take back.
RETIRE = "retire"
#: States in which the target may have traffic that nobody confirmed.
UNCONFIRMED = ("switching", "verified", "reverting")
#: States that a process of this host passes through by itself, while no controller has a say.
_LOCAL = ("switching", "reverting", "confirmed")
#: States in which the target slot was not touched yet.
_UNTOUCHED = ("locked", "building", "built")
#: Looks in a row that have to fail before traffic goes back.
STRIKES = 3
_FAILURES = 2 * STRIKES  # the same, if not in a row
_PASSES = 3  # looks in a row through nginx that make a switch verified
_POLL = 0.25  # seconds between two looks


class Engine:
    """The transitions that deploys, switches and rollbacks have in common."""

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self.settings = settings
        self.machine = machine
        settings.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.operation_lock = OperationLock(settings.state_dir, machine)
        self.history = History(settings.state_dir / "journal.jsonl")

    # --- begin, go on, end --------------------------------------------------------------------------------------------

    def begin(self, kind: str, owner: Owner, *, wait: float, dead: str = "", lease: float = 0.0) -> Operation:
        """Begin an operation, after settling one whose owner died.

        :param wait: seconds to wait for somebody else's.
        :param dead: token of an operation whose owner is known to be dead, by who can see that.
        :param lease: seconds that it stays alive without a process on this host.
        :raises BusyError: somebody else's is alive.
        """
        deadline = self.machine.now() + wait
        while True:
            operation = self.operation_lock.current()
            if operation is not None and self.stale(operation, dead):
                with contextlib.suppress(LostError):
                    self.settle(dead=dead)
                continue
            if operation is None:
                # Under one lock, or whoever just finds nothing at work would stop the watch that begins here.
                with contextlib.suppress(BusyError), self.operation_lock.locked():
                    if self.operation_lock.current() is None and kind != RETIRE:
                        self.machine.watch(on=True)
                    return self.done(self.operation_lock.begin(kind, owner, self._next_generation(), lease), "locked")
            elif self.machine.now() >= deadline:
                raise BusyError(
                    f"{operation}; it is alive, so nothing was touched. Wait for it, or end its process; a controller "
                    f"that was killed counts as dead {self.settings.lease_seconds:g} s after its last step."
                )
            self.machine.sleep(_POLL)

    def done(self, operation: Operation, step: str, *, state: str = "", seconds: float | None = None) -> Operation:
        """Write down that a step is done, and how long it took.

        :param state: what the operation is in now, if that is not the step's name.
        """
        now = self.machine.now()
        durations = {**operation.durations, step: round(now - operation.state_since if seconds is None else seconds, 6)}
        return self.operation_lock.update(operation, state=state or step, state_since=now, durations=durations)

    @contextlib.contextmanager
    def abort_on_error(self, operation: Operation) -> Iterator[None]:
        """Whatever goes wrong inside, Ctrl-C too, ends the operation before it is passed on."""
        try:
            yield
        except RefusedError:
            self.end(operation)
            raise
        except LostError:
            raise
        except BaseException as error:
            with contextlib.suppress(LostError):
                present = self.operation_lock.current()
                if present is not None and self.operation_lock.ours(operation):
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    # Ctrl-C says nothing about the release, which must not count as bad for it.
                    self.abort(present, reason, FAILED if isinstance(error, Exception) else ABANDONED)
            raise

    def end(self, operation: Operation) -> None:
        """Let others begin."""
        # In this order: whoever dies between the two leaves a watch that finds nothing, and not the other way round.
        # Under one lock, because the next operation may begin its own watch as soon as this one has ended.
        with self.operation_lock.locked():
            self.operation_lock.end(operation)
            if operation.kind != RETIRE:
                self.machine.watch(on=False)

    def finish(self, operation: Operation, result: str, reason: str, *, restore: float | None = None) -> None:
        """Write the journal's line, once, tell the webhook, and let others begin.

        :param restore: seconds from trouble to service, if service was in trouble.
        """
        records = self.history.read()
        record = {
            "generation": operation.generation,
            "kind": operation.kind,
            "who": operation.owner.name,
            "began": operation.began,
            "ended": self.machine.utc_timestamp(),
            "source": dataclasses.asdict(operation.source),
            "target": dataclasses.asdict(operation.target),
            "durations": operation.durations,
            "result": result,
            "reason": reason,
            "restore_seconds": None if restore is None else round(restore, 6),
            "ended_at": {"boot_id": self.machine.boot_id(), "seconds": self.machine.now()},
        }
        if all(known["generation"] != operation.generation for known in records):
            self.history.append(record)
            records.append(record)
        if self.settings.textfile_dir is not None and self.settings.textfile_dir.is_dir():
            # Figures must not decide about a deploy.
            with contextlib.suppress(OSError):
                durable.write(self.settings.textfile_dir / "aapanel_deploy.prom", history.textfile(records), 0o644)
        self.end(operation)
        self.machine.notify(record)

    def _next_generation(self) -> int:
        return 1 + max((int(record["generation"]) for record in self.history.read()), default=0)

    # --- forward ------------------------------------------------------------------------------------------------------

    def wait_healthy(self, place: SlotRelease, passes: int) -> None:
        """Wait until a slot is healthy so many times in a row, with just that release.

        :raises UnhealthyError: it dies, or was not healthy in time; with its last answer and its last lines.
        """
        slot = slot_of(place)
        deadline = self.machine.now() + self.settings.healthy_timeout
        passed = 0
        while passed < passes:
            answer = self.machine.ready(slot)
            passed = passed + 1 if answer.ok and answer.release == place.release else 0
            problem = ""
            if not passed and self.machine.crashed(slot):
                problem = "it dies again and again"
            elif not passed and self.machine.now() >= deadline:
                problem = f"it was not healthy within {self.settings.healthy_timeout:g} s"
                problem += f"; another release than {place.release} answers" if answer.ok else ""
            if problem:
                raise UnhealthyError(
                    f"slot {slot}: {problem}. Last answer of {probe.READY}: {answer}\nIts last lines:\n"
                    f"{self.machine.logs(slot)}"
                )
            if passed < passes:
                self.machine.sleep(_POLL)
        if path := self.settings.websocket_path:
            answer = self.machine.websocket(slot, path)
            if not answer.upgraded:
                raise UnhealthyError(f"slot {slot}: no WebSocket at {path}: {answer}")

    def switch(self, operation: Operation) -> Operation:
        """Give the target all traffic by one rename, and look through nginx whether that is well.

        :raises UnhealthyError: it is not; traffic is back where it was, and the operation has ended.
        """
        with self.abort_on_error(operation):
            baseline = self.edge()
            deadline = self.machine.now() + self.settings.confirm_seconds
            operation = self.operation_lock.update(operation, state="switching", confirm_until=deadline)
            seconds = self._put_live(operation, slot_of(operation.target))
            operation = self.done(operation, "switched", state="switching", seconds=seconds)
            # An nginx that was not there before the switch is not this release's fault: site.yml brings it later.
            if baseline.status:
                # Whoever rolls back is in a hurry; the old colour's watch goes on looking.
                if operation.kind == "rollback":
                    self._verify(1, 0.0)
                else:
                    self._verify(_PASSES, self.settings.verify_seconds)
            return self.done(operation, "verified")

    def confirm(self, operation: Operation) -> Operation:
        """Keep a switch. The old colour stays warm for the safety period, then it is drained and stopped."""
        operation = self.done(operation, "confirmed")
        self._finish_confirmed(operation)
        return operation

    def _finish_confirmed(self, operation: Operation) -> None:
        source = operation.source.slot
        if source and source != operation.target.slot:
            # It waits for the end of this operation before it looks at the time.
            self.machine.retire(source, wanted=True)
        restore = sum(operation.durations.values()) if operation.kind == "rollback" else None
        self.finish(operation, CONFIRMED, operation.reason, restore=restore)

    def _put_live(self, operation: Operation, slot: str) -> float:
        """The rename itself, and how long it took, in seconds."""
        with self.operation_lock.holding(operation):
            begin = self.machine.now()
            durable.replace_link(self.settings.live_link, f"slots/{slot}")
            # Traffic has moved; what follows makes it so after a loss of power, too.
            seconds = self.machine.now() - begin
            durable.sync(self.settings.base_dir)
            # Whoever has traffic was started.
            self.settings.stopped_file.unlink(missing_ok=True)
            return seconds

    def _verify(self, passes: int, seconds: float) -> None:
        end = self.machine.now() + seconds
        passed = strikes = failed = 0
        while passed < passes or self.machine.now() < end:
            problem = self.edge_problem()
            passed, strikes = (0, strikes + 1) if problem else (passed + 1, 0)
            failed += bool(problem)
            # A release that fails every other time would never strike out in a row, and never pass.
            if strikes >= STRIKES or failed >= _FAILURES:
                raise UnhealthyError(f"through nginx: {problem}")
            self.machine.sleep(_POLL)

    # --- back ---------------------------------------------------------------------------------------------------------

    def abort(self, operation: Operation, reason: str, result: str, *, waiting: bool = True) -> None:
        """End an operation from whatever state it is in: nothing was switched yet, or traffic goes back.

        :param result: what the journal says where nothing was switched.
        :param waiting: False at boot, when no slot runs yet and nobody may wait for one.
        """
        if operation.kind == RETIRE:
            self.end(operation)
            return
        if operation.state == "confirmed":
            self._finish_confirmed(operation)
            return
        target = operation.target.slot
        # What touched nothing ends even where the link is broken, which may be why it ends.
        live = None if operation.state in _UNTOUCHED else live_slot(self.settings.base_dir)
        if operation.state == "reverting":
            self.revert(operation, operation.reason, waiting=waiting)
        elif operation.state in UNCONFIRMED and live == target:
            if operation.kind == "rollback" and waiting and self._serves(operation.target):
                self.confirm(operation)
            else:
                self.revert(operation, reason, waiting=waiting)
        else:
            if target and target != live and waiting and operation.state not in _UNTOUCHED:
                self.machine.stop(target)
            self.finish(operation, result, reason)

    def revert(self, operation: Operation, reason: str, *, waiting: bool = True) -> None:
        """Give traffic back to the colour that had it."""
        begin = self.machine.now()
        operation = self.operation_lock.update(operation, state="reverting", reason=reason)
        source = operation.source.slot
        if source is None:
            self.finish(operation, FAILED, f"{reason}; there is no release to go back to")
            return
        if waiting and not self.machine.running(source):
            try:
                self.machine.start(source)
                self.wait_healthy(operation.source, 1)
            except UnhealthyError:
                if self._serves(operation.target):
                    reason += "; kept, because the old colour does not start"
                    self._finish_confirmed(self.operation_lock.update(operation, state="confirmed", reason=reason))
                    return
        self._put_live(operation, source)
        seconds = self.machine.now() - begin
        if waiting:
            self.machine.retire(source, wanted=False)
            self.machine.stop(slot_of(operation.target))
        self.finish(operation, REVERTED, reason, restore=seconds)

    def settle(self, *, waiting: bool = True, dead: str = "") -> str:
        """End an operation whose owner died, or whose confirmation is overdue. Says what was wrong; empty if nothing.

        :param waiting: False at boot, when no slot runs yet and nobody may wait for one.
        """
        with self.operation_lock.locked():
            operation = self.operation_lock.current()
            if operation is None:
                # Whoever ended the last one may have died before it stopped the watch.
                self.machine.watch(on=False)
                return ""
            if not self.stale(operation, dead):
                return ""
            operation = self.operation_lock.take_over(operation)
        why = f"{operation.owner.name} died in state {operation.state}"
        if self._waits(operation):
            why = f"nobody confirmed it within {self.settings.confirm_seconds:g} s"
        self.abort(operation, why, ABANDONED, waiting=waiting)
        return why

    # --- look ---------------------------------------------------------------------------------------------------------

    def stale(self, operation: Operation, dead: str = "") -> bool:
        """Whether nobody will go on with an operation."""
        if operation.token == dead:
            return True
        if self._waits(operation) and operation.boot_id == self.machine.boot_id():
            return self.machine.now() >= (operation.confirm_until or 0.0)
        if operation.state in _LOCAL and operation.boot_id == self.machine.boot_id():
            # Its owner is a process of this host: a controller's lease would only prolong what is wrong.
            return not self.machine.alive(operation.pid, operation.pid_started)
        return not self.operation_lock.alive(operation)

    def observe(self) -> Traffic:
        """Look at the link and the slots."""
        return observe(self.settings.base_dir, self.settings.config_dir)

    def edge(self) -> Answer:
        """What nginx says of the live slot's health; no answer where there is no nginx."""
        return self.machine.edge(probe.READY) if self.settings.two_colours else Answer(0, text="there is no nginx")

    def edge_problem(self) -> str:
        """What a visitor would find wrong with the live release; empty where all is well."""
        if not self.settings.two_colours:
            return ""
        live = live_slot(self.settings.base_dir)
        if live is None:
            return "nothing is live"
        release = read_slot(self.settings.slot_dir(live), self.settings.slot_env(live)).release
        paths: Sequence[str] = () if self.settings.maintenance_file.exists() else self.settings.verify_paths
        for path in (probe.READY, *paths):
            answer = self.machine.edge(path)
            fine = answer.ok if path == probe.READY else not answer.broken
            if not fine or answer.release != release:
                return f"{path}: {answer}; expected release {release} in slot {live}"
        return ""

    def since_switch(self) -> float:
        """Seconds since traffic last moved; infinite where that was before this boot, or never."""
        for record in reversed(self.history.read()):
            if record["result"] in (CONFIRMED, REVERTED):
                ended = record["ended_at"]
                if ended["boot_id"] != self.machine.boot_id():
                    break
                return float(self.machine.now() - ended["seconds"])
        return float("inf")

    def _waits(self, operation: Operation) -> bool:
        return operation.state == "verified" and operation.confirm_until is not None

    def _serves(self, place: SlotRelease) -> bool:
        answer = self.machine.ready(slot_of(place))
        return answer.ok and answer.release == place.release


def slot_of(place: SlotRelease) -> str:
    """The slot of a place that has to have one."""
    if place.slot is None:
        raise TrafficError("the operation names no slot")
    return place.slot
