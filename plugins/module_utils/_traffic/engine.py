# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The state machine: locked, building, prepared, migrated, started, healthy, switching, verified, confirmed.

An operation that ends before `switching` leaves traffic untouched. One that ends later is reverted, unless it was
confirmed. Each state is recorded before the step that others can see. After a crash, the next process reads from it
what may have happened, and observes on the host what did happen.
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

#: An operation that only keeps other operations away: it is not recorded in the history, and never reverted.
RETIRE = "retire"
#: States in which the target may have traffic without a confirmation.
UNCONFIRMED = ("switching", "verified", "reverting")
#: States that a process on this host completes without the controller.
_LOCAL = ("switching", "reverting", "confirmed")
#: States in which the target slot is still untouched.
_UNTOUCHED = ("locked", "building", "built")
#: Failed checks in a row that revert a switch.
STRIKES = 3
_FAILURES = 2 * STRIKES  # failed checks in total that revert a switch
_PASSES = 3  # passed checks in a row through nginx that verify a switch
_POLL = 0.25  # seconds between two checks


class Engine:
    """The state transitions that deploys, switches and rollbacks share."""

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self.settings = settings
        self.machine = machine
        settings.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.operation_lock = OperationLock(settings.state_dir, machine)
        self.history = History(settings.state_dir / "journal.jsonl")

    # --- begin, continue, end -----------------------------------------------------------------------------------------

    def begin(self, kind: str, owner: Owner, *, wait: float, dead: str = "", lease: float = 0.0) -> Operation:
        """Begin an operation, after settling one whose owner died.

        :param wait: seconds to wait for another operation.
        :param dead: token of an operation whose owner is known to be dead.
        :param lease: seconds that the operation stays alive without a process on this host.
        :raises BusyError: another operation is in progress.
        """
        deadline = self.machine.now() + wait
        while True:
            operation = self.operation_lock.current()
            if operation is not None and self.stale(operation, dead):
                with contextlib.suppress(LostError):
                    self.settle(dead=dead)
                continue
            if operation is None:
                # Under one lock, or a concurrent `settle` that finds no operation would stop this timer.
                with contextlib.suppress(BusyError), self.operation_lock.exclusive():
                    if self.operation_lock.current() is None and kind != RETIRE:
                        self.machine.watch(on=True)
                    return self.record_step(
                        self.operation_lock.begin(kind, owner, self._next_generation(), lease), "locked"
                    )
            elif self.machine.now() >= deadline:
                raise BusyError(
                    f"{operation}, is alive, so nothing was touched. Wait for it, or end its process; a killed "
                    f"controller counts as dead {self.settings.lease_seconds:g} s after its last step."
                )
            self.machine.sleep(_POLL)

    def record_step(
        self, operation: Operation, step: str, *, state: str = "", seconds: float | None = None
    ) -> Operation:
        """Record that a step is done, and its duration.

        :param state: the new state, if it differs from the name of the step.
        :param seconds: the duration, if it differs from the time in the last state.
        """
        now = self.machine.now()
        durations = {**operation.durations, step: round(now - operation.state_since if seconds is None else seconds, 6)}
        return self.operation_lock.update(operation, state=state or step, state_since=now, durations=durations)

    @contextlib.contextmanager
    def abort_on_error(self, operation: Operation) -> Iterator[None]:
        """Abort the operation on any exception in the block, Ctrl-C included, and re-raise it."""
        try:
            yield
        except RefusedError:
            self.end(operation)
            raise
        except LostError:
            raise
        except BaseException as error:
            with contextlib.suppress(LostError):
                current = self.operation_lock.current()
                if current is not None and self.operation_lock.is_held(operation):
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    # Ctrl-C is no reason to mark the release as bad.
                    self.abort(current, reason, FAILED if isinstance(error, Exception) else ABANDONED)
            raise

    def end(self, operation: Operation) -> None:
        """Release the operation lock."""
        # In this order, so that a crash between the two leaves a timer that finds nothing. Under one lock, because the
        # next operation may start the timer as soon as this one has ended.
        with self.operation_lock.exclusive():
            self.operation_lock.end(operation)
            if operation.kind != RETIRE:
                self.machine.watch(on=False)

    def finish(self, operation: Operation, result: str, reason: str, *, restore: float | None = None) -> None:
        """Append to the history once, release the operation lock, and notify the webhook.

        :param restore: seconds that it took to restore service, if it was disturbed.
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
            # Failing metrics must not fail a deploy.
            with contextlib.suppress(OSError):
                durable.write(self.settings.textfile_dir / "aapanel_deploy.prom", history.textfile(records), 0o644)
        self.end(operation)
        self.machine.notify(record)

    def _next_generation(self) -> int:
        return 1 + max((int(record["generation"]) for record in self.history.read()), default=0)

    # --- forward ------------------------------------------------------------------------------------------------------

    def wait_healthy(self, expected: SlotRelease, passes: int) -> None:
        """Wait until a slot is healthy several times in a row with the expected release.

        :param passes: how many times.
        :raises UnhealthyError: it dies, or is not healthy in time; with its last answer and the end of its log.
        """
        slot = slot_of(expected)
        deadline = self.machine.now() + self.settings.healthy_timeout
        passed = 0
        while passed < passes:
            answer = self.machine.ready(slot)
            passed = passed + 1 if answer.ok and answer.release == expected.release else 0
            problem = ""
            if not passed and self.machine.crashed(slot):
                problem = "it is in a crash loop"
            elif not passed and self.machine.now() >= deadline:
                problem = f"it was not healthy within {self.settings.healthy_timeout:g} s"
                problem += f"; another release than {expected.release} answers" if answer.ok else ""
            if problem:
                raise UnhealthyError(
                    f"slot {slot}: {problem}. Last answer of {probe.READY}: {answer}\nEnd of its log:\n"
                    f"{self.machine.logs(slot)}"
                )
            if passed < passes:
                self.machine.sleep(_POLL)
        if path := self.settings.websocket_path:
            answer = self.machine.websocket(slot, path)
            if not answer.upgraded:
                raise UnhealthyError(f"slot {slot} opens no WebSocket at {path}: {answer}")

    def switch(self, operation: Operation) -> Operation:
        """Make the target live by one rename, and verify it through nginx.

        :raises UnhealthyError: the check failed; the switch is reverted, and the operation has ended.
        """
        with self.abort_on_error(operation):
            baseline = self.edge()
            deadline = self.machine.now() + self.settings.confirm_seconds
            operation = self.operation_lock.update(operation, state="switching", confirm_until=deadline)
            seconds = self._set_live(operation, slot_of(operation.target))
            operation = self.record_step(operation, "switched", state="switching", seconds=seconds)
            # Skipped if nginx did not answer before the switch either: site.yml installs nginx later.
            if baseline.status:
                # A rollback has to be fast; `unattended.retire` goes on checking.
                if operation.kind == "rollback":
                    self._verify(1, 0.0)
                else:
                    self._verify(_PASSES, self.settings.verify_seconds)
            return self.record_step(operation, "verified")

    def confirm(self, operation: Operation) -> Operation:
        """Confirm a switch. The previous slot stays started for the safety period, then it is drained and stopped."""
        operation = self.record_step(operation, "confirmed")
        self._finish_confirmed(operation)
        return operation

    def _finish_confirmed(self, operation: Operation) -> None:
        source = operation.source.slot
        if source and source != operation.target.slot:
            # The retirement waits for the end of this operation, from which the safety period counts.
            self.machine.retire(source, on=True)
        restore = sum(operation.durations.values()) if operation.kind == "rollback" else None
        self.finish(operation, CONFIRMED, operation.reason, restore=restore)

    def _set_live(self, operation: Operation, slot: str) -> float:
        """Replace the live link, and return how many seconds that took."""
        with self.operation_lock.holding(operation):
            begin = self.machine.now()
            durable.replace_link(self.settings.live_link, f"slots/{slot}")
            # Traffic has moved; the rest makes that durable.
            seconds = self.machine.now() - begin
            durable.sync(self.settings.base_dir)
            # A switch ends `panelctl stop`.
            self.settings.stopped_file.unlink(missing_ok=True)
            return seconds

    def _verify(self, passes: int, seconds: float) -> None:
        end = self.machine.now() + seconds
        passed = strikes = failed = 0
        while passed < passes or self.machine.now() < end:
            problem = self.edge_problem()
            passed, strikes = (0, strikes + 1) if problem else (passed + 1, 0)
            failed += bool(problem)
            # A release that fails every other check would otherwise neither fail nor pass.
            if strikes >= STRIKES or failed >= _FAILURES:
                raise UnhealthyError(f"through nginx: {problem}")
            self.machine.sleep(_POLL)

    # --- revert -------------------------------------------------------------------------------------------------------

    def abort(self, operation: Operation, reason: str, result: str, *, at_boot: bool = False) -> None:
        """End an operation in any state; revert it if traffic was switched.

        :param result: the result in the history if traffic was not switched.
        :param at_boot: no slot runs yet, and this process must not wait for one.
        """
        if operation.kind == RETIRE:
            self.end(operation)
            return
        if operation.state == "confirmed":
            self._finish_confirmed(operation)
            return
        target = operation.target.slot
        # An operation that touched nothing ends even with a broken live link, which may be the reason for the abort.
        live = None if operation.state in _UNTOUCHED else live_slot(self.settings.base_dir)
        if operation.state == "reverting":
            self.revert(operation, operation.reason, at_boot=at_boot)
        elif operation.state in UNCONFIRMED and live == target:
            if operation.kind == "rollback" and not at_boot and self._is_healthy(operation.target):
                self.confirm(operation)
            else:
                self.revert(operation, reason, at_boot=at_boot)
        else:
            if target and target != live and not at_boot and operation.state not in _UNTOUCHED:
                self.machine.stop(target)
            self.finish(operation, result, reason)

    def revert(self, operation: Operation, reason: str, *, at_boot: bool = False) -> None:
        """Make the source live again; keep the target if the source does not start and the target is healthy.

        :param at_boot: see `abort`.
        """
        begin = self.machine.now()
        operation = self.operation_lock.update(operation, state="reverting", reason=reason)
        source = operation.source.slot
        if source is None:
            self.finish(operation, FAILED, f"{reason}; there is no release to go back to")
            return
        if not at_boot and not self.machine.running(source):
            try:
                self.machine.start(source)
                self.wait_healthy(operation.source, 1)
            except UnhealthyError:
                if self._is_healthy(operation.target):
                    reason += "; kept, because the previous slot does not start"
                    self._finish_confirmed(self.operation_lock.update(operation, state="confirmed", reason=reason))
                    return
        self._set_live(operation, source)
        seconds = self.machine.now() - begin
        if not at_boot:
            self.machine.retire(source, on=False)
            self.machine.stop(slot_of(operation.target))
        self.finish(operation, REVERTED, reason, restore=seconds)

    def settle(self, *, at_boot: bool = False, dead: str = "") -> str:
        """End an operation whose owner died, or whose confirmation is overdue.

        :param at_boot: see `abort`.
        :param dead: see `begin`.
        :returns: why it was ended; empty if there was nothing to settle.
        """
        with self.operation_lock.exclusive():
            operation = self.operation_lock.current()
            if operation is None:
                # The process that ended the last operation may have died before it stopped the timer.
                self.machine.watch(on=False)
                return ""
            if not self.stale(operation, dead):
                return ""
            operation = self.operation_lock.take_over(operation)
        reason = f"{operation.owner.name} died in state {operation.state}"
        if self._awaits_confirmation(operation):
            reason = f"not confirmed within {self.settings.confirm_seconds:g} s"
        self.abort(operation, reason, ABANDONED, at_boot=at_boot)
        return reason

    # --- observe ------------------------------------------------------------------------------------------------------

    def stale(self, operation: Operation, dead: str = "") -> bool:
        """Whether an operation can no longer be continued by its owner.

        :param dead: see `begin`.
        """
        if operation.token == dead:
            return True
        if self._awaits_confirmation(operation) and operation.boot_id == self.machine.boot_id():
            return self.machine.now() >= (operation.confirm_until or 0.0)
        if operation.state in _LOCAL and operation.boot_id == self.machine.boot_id():
            # A process of this host acts alone; the lease of its controller would only delay the recovery.
            return not self.machine.alive(operation.pid, operation.pid_started)
        return not self.operation_lock.is_alive(operation)

    def observe(self) -> Traffic:
        """Observe the live link and the slots."""
        return observe(self.settings.base_dir, self.settings.config_dir)

    def edge(self) -> Answer:
        """Request the readiness of the live slot through nginx; status 0 on a host without nginx."""
        return self.machine.edge(probe.READY) if self.settings.two_colours else Answer(0, text="there is no nginx")

    def edge_problem(self) -> str:
        """Return what a visitor would find wrong with the live release; empty if it is healthy."""
        if not self.settings.two_colours:
            return ""
        live = live_slot(self.settings.base_dir)
        if live is None:
            return "nothing is live"
        release = read_slot(self.settings.slot_dir(live), self.settings.slot_env(live)).release
        paths: Sequence[str] = () if self.settings.maintenance_file.exists() else self.settings.verify_paths
        for path in (probe.READY, *paths):
            answer = self.machine.edge(path)
            healthy = answer.ok if path == probe.READY else not answer.broken
            if not healthy or answer.release != release:
                return f"{path}: {answer}; expected release {release} in slot {live}"
        return ""

    def since_switch(self) -> float:
        """Return the seconds since the last switch; infinite if that was before this boot, or never."""
        for record in reversed(self.history.read()):
            if record["result"] in (CONFIRMED, REVERTED):
                ended = record["ended_at"]
                if ended["boot_id"] != self.machine.boot_id():
                    break
                return float(self.machine.now() - ended["seconds"])
        return float("inf")

    def _awaits_confirmation(self, operation: Operation) -> bool:
        return operation.state == "verified" and operation.confirm_until is not None

    def _is_healthy(self, expected: SlotRelease) -> bool:
        answer = self.machine.ready(slot_of(expected))
        return answer.ok and answer.release == expected.release


def slot_of(slot_release: SlotRelease) -> str:
    """Return the slot.

    :raises TrafficError: there is no slot.
    """
    if slot_release.slot is None:
        raise TrafficError("the operation names no slot")
    return slot_release.slot
