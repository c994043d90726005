# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploys, switches, crashes and retirements as examples; test_traffic_state_machine.py generates random ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._panelctl import render
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import stop_start, switch, unattended
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.deploy import Deploy
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.engine import Engine
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import (
    BusyError,
    LostError,
    RefusedError,
    TrafficError,
    UnhealthyError,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import Operation
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.status import describe
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.switch import SwitchRequest
from fake_host import CONTROLLER, PERSON, STEPS, Crash, Process, World, make_world


@pytest.fixture
def world() -> Iterator[World]:
    made = make_world()
    yield made
    made.close()


@pytest.fixture
def served(world: World) -> World:
    """A host with release 1 in blue, which is live."""
    world.deploy("1-good")
    return world


def move(world: World, kind: str = "rollback", target: str = "previous", **options: object) -> None:
    with world.process() as engine:
        switch.switch(engine, SwitchRequest(kind, target, **options), PERSON, wait=1.0)  # type: ignore[arg-type]


def results(world: World) -> list[tuple[str, str]]:
    return [(record["kind"], record["result"]) for record in world.records()]


# --- deploys ----------------------------------------------------------------------------------------------------------


def test_a_good_release_becomes_live_and_the_previous_slot_is_stopped(served: World) -> None:
    assert served.live() == ("blue", "1-good")
    served.deploy("2-good")
    assert served.live() == ("green", "2-good")
    assert "blue" in served.services, "the old colour stays warm"
    served.run_retiring()
    assert "blue" not in served.services
    assert served.serves()
    assert results(served) == [("deploy", "confirmed")] * 2
    assert served.operation() is None
    assert not served.watched
    last = served.records()[-1]
    assert set(last["durations"]) == {
        *("locked", "backed_up", "built", "prepared", "migrated", "started"),
        *("healthy", "switched", "verified", "confirmed"),
    }
    assert (last["source"], last["target"]) == (
        {"slot": "blue", "release": "1-good"},
        {"slot": "green", "release": "2-good"},
    )
    assert served.told == served.records()


def test_a_backup_precedes_the_migration_if_configured() -> None:
    world = make_world(backup_set="databases")
    with contextlib.closing(world):
        world.deploy("1-good")
        assert world.backups == [], "site.yml has not set it up yet"
        assert "data_backed_up" not in world.records()[-1]["durations"]
        world.settings.backup_file.write_text("{}")
        world.deploy("2-good")
        assert world.backups == ["databases"]
        assert "data_backed_up" in world.records()[-1]["durations"]
        world.backup_fails = True
        with pytest.raises(UnhealthyError, match="the backup failed"):
            world.deploy("3-good")
        assert world.migrated == ["1-good", "2-good"]
        assert world.live() == ("green", "2-good")
        assert results(world)[-1] == ("deploy", "failed")


@pytest.mark.parametrize("mode", ["dies", "loops", "sick", "liar", "migration"])
def test_an_unhealthy_release_never_receives_traffic(served: World, mode: str) -> None:
    moved: list[object] = []
    served.look = lambda process: moved.append(served.live())
    with pytest.raises(UnhealthyError):
        served.deploy(f"2-{mode}")
    assert set(moved) == {("blue", "1-good")}
    assert list(served.services) == ["blue"]
    assert results(served)[-1] == ("deploy", "failed")
    with pytest.raises(RefusedError, match="marked bad"):
        move(served)


def test_a_release_that_breaks_after_the_switch_is_reverted_after_three_failed_checks(served: World) -> None:
    looks: list[float] = []
    served.look = lambda process: looks.append(served.clock) if served.live() == ("green", "2-breaks") else None
    with pytest.raises(UnhealthyError, match="through nginx"):
        served.deploy("2-breaks")
    assert max(looks) - min(looks) < 1.0
    assert served.live() == ("blue", "1-good")
    assert served.serves()
    assert list(served.services) == ["blue"]
    assert results(served)[-1] == ("deploy", "reverted")
    assert served.records()[-1]["restore_seconds"] < 1.0
    assert "2-breaks" in served.records()[-1]["target"]["release"]


def test_a_release_that_fails_every_other_check_is_reverted(served: World) -> None:
    flips = {"2-good": 0}

    def flip(process: Process) -> None:
        if served.live() == ("green", "2-good"):
            flips["2-good"] += 1
            served.modes["2-good"] = "good" if int(served.clock * 4) % 2 else "breaks"

    served.look = flip
    with pytest.raises(UnhealthyError, match="through nginx"):
        served.deploy("2-good")
    assert served.live() == ("blue", "1-good")
    assert flips["2-good"] > 0


def test_the_first_release_of_a_host_is_never_reverted(world: World) -> None:
    with pytest.raises(UnhealthyError):
        world.deploy("1-breaks")
    assert world.live() == ("blue", "1-breaks")
    assert world.records()[-1]["result"] == "failed"
    assert "no release to go back to" in world.records()[-1]["reason"]


def test_verification_is_skipped_without_nginx(served: World) -> None:
    served.nginx = False
    served.deploy("2-breaks")
    assert served.live() == ("green", "2-breaks")


def test_a_switch_is_reverted_if_nginx_dies_during_it(served: World) -> None:
    def look(process: Process) -> None:
        served.nginx = served.live() == ("blue", "1-good")

    served.look = look
    with pytest.raises(UnhealthyError, match="no answer"):
        served.deploy("2-good")
    assert served.live() == ("blue", "1-good")


def test_the_maintenance_page_reverts_nothing(served: World) -> None:
    served.settings.maintenance_file.touch()
    served.deploy("2-good")
    assert served.live() == ("green", "2-good")


def test_a_slot_without_its_websocket_receives_no_traffic() -> None:
    world = make_world(websocket_path="/missing")
    with pytest.raises(UnhealthyError, match="no WebSocket at /missing"):
        world.deploy("1-good")
    assert world.live() is None
    world.close()


def test_a_deploy_drains_its_slot_up_to_the_drain_time(served: World) -> None:
    served.deploy("2-good")
    served.connections["blue"] = 1
    before = served.clock
    served.deploy("3-good")
    assert served.live() == ("blue", "3-good")
    assert served.settings.drain_seconds <= served.clock - before < served.settings.drain_seconds + 20


def test_the_only_slot_is_restarted() -> None:
    world = make_world(two_colours=False)
    world.deploy("1-good")
    world.deploy("2-good")
    assert world.live() == ("blue", "2-good")
    with pytest.raises(UnhealthyError):
        world.deploy("3-sick")
    assert [result for _, result in results(world)] == ["confirmed", "confirmed", "failed"]
    with pytest.raises(RefusedError, match="one slot"):
        move(world)
    assert world.operation() is None
    world.close()


def test_a_failed_lock_releases_the_operation_lock(served: World) -> None:
    served.settings.live_link.unlink()
    served.settings.live_link.mkdir()
    with pytest.raises(TrafficError, match="not a symlink"):
        served.step("lock", "", "")
    assert served.operation() is None
    assert not served.watched


def test_unwritable_metrics_do_not_fail_a_deploy() -> None:
    world = make_world()
    (world.root / "textfile").mkdir()
    (world.root / "textfile/aapanel_deploy.prom").mkdir()  # a rename onto a folder fails even for root
    world.settings = type(world.settings)(**{**vars(world.settings), "textfile_dir": world.root / "textfile"})
    world.deploy("1-good")
    assert results(world) == [("deploy", "confirmed")]
    assert world.operation() is None
    world.close()


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_controller_that_dies_after_any_step_leaves_a_healthy_slot(served: World, step: str) -> None:
    deploy = served.deploy("2-good", stop_after=step)
    assert served.watched
    served.pass_time(served.settings.confirm_seconds + 10)
    if step == "switch":
        assert results(served)[-1] == ("deploy", "reverted")
        assert "not confirmed within" in served.records()[-1]["reason"]
    else:
        assert served.operation() is not None, "it has a lease"
        served.pass_time(served.settings.lease_seconds)
        assert results(served)[-1] == ("deploy", "abandoned")
        assert "ann@laptop died" in served.records()[-1]["reason"]
    assert served.live() == ("blue", "1-good")
    assert served.serves()
    assert list(served.services) == ["blue"]
    assert served.operation() is None
    assert not served.watched
    with pytest.raises(LostError):
        served.step("confirm", deploy.token, "")


def test_a_long_build_outlives_its_lease(served: World) -> None:
    deploy = served.deploy("2-good", stop_after="build")
    served.building = True
    served.pass_time(served.settings.lease_seconds * 3)
    assert served.operation() is not None
    served.building = False
    served.pass_time(10)
    assert served.operation() is None
    assert deploy.token


@pytest.mark.parametrize(
    ("last", "steps"),
    [
        ("lock", ["prepare", "migrate", "start", "switch", "confirm"]),
        ("build", ["build", "migrate", "start", "switch", "confirm"]),
        ("prepare", ["build", "prepare", "switch", "confirm"]),
        ("start", ["prepare", "start", "confirm"]),
        ("switch", ["start", "switch"]),
    ],
)
def test_a_step_out_of_order_is_refused_and_changes_nothing(served: World, last: str, steps: list[str]) -> None:
    token = served.deploy("2-good", stop_after=last).token
    before = (served.operation(), served.live())
    for step in steps:
        with pytest.raises(RefusedError, match="this step follows"):
            served.step(step, token, "2-good")
    assert (served.operation(), served.live()) == before


def test_a_controller_known_to_be_dead_loses_its_lease_at_once(served: World) -> None:
    dead = served.deploy("2-good", stop_after="start").token
    with pytest.raises(BusyError, match="ann@laptop"):
        served.step("lock", "", "")
    with served.process() as engine:
        Deploy(engine).lock(CONTROLLER, dead=dead)
    assert results(served)[-1] == ("deploy", "abandoned")
    with pytest.raises(LostError):
        served.step("switch", dead, "")
    assert served.live() == ("blue", "1-good")


def test_a_switch_that_is_killed_while_it_verifies_is_reverted_at_once(served: World) -> None:
    """The lease of the controller only counts between steps; the host sees that its own process died."""
    token = served.deploy("2-good", stop_after="start").token

    def look(process: Process) -> None:
        if served.live() == ("green", "2-good") and not process.engine.operation_lock._depth:
            served.look = lambda process: None
            process.dead = True
            served.pids.pop(process.pid)
            raise Crash

    served.look = look
    with pytest.raises(Crash):
        served.step("switch", token, "")
    assert served.live() == ("green", "2-good")
    served.pass_time(10)
    assert served.live() == ("blue", "1-good")
    assert served.operation() is None


def test_a_deploy_killed_at_any_touch_ends_with_a_healthy_release_and_one_record() -> None:
    for kill_at in range(1, 400):
        world = make_world(verify_seconds=0.0, healthy_passes=1)
        world.serve("1-good")
        token, died = "", ""
        for step in STEPS:
            with contextlib.suppress(Crash):
                token = world.step(step, token, "2-good", kill_at=kill_at if step in ("switch", "confirm") else None)
                continue
            died = step
            break
        world.pass_time(world.settings.lease_seconds + world.settings.confirm_seconds + 10)
        assert world.operation() is None, (died, kill_at)
        assert world.serves(), (died, kill_at)
        assert len(world.records()) == 1, (died, kill_at)
        last = world.records()[-1]
        place = last["source" if last["result"] in ("reverted", "abandoned") else "target"]
        assert world.live() == (place["slot"], place["release"]), (died, kill_at)
        world.close()
        if not died:
            return
    pytest.fail("a deploy has no end")


@pytest.mark.parametrize("step", STEPS[:-1])
def test_after_a_reboot_in_any_state_the_confirmed_release_is_live(served: World, step: str) -> None:
    served.deploy("2-good", stop_after=step)
    served.reboot()
    assert served.live() == ("blue", "1-good")
    assert served.serves()
    assert served.operation() is None
    assert results(served)[-1][1] == ("reverted" if step == "switch" else "abandoned")


def test_the_panel_starts_even_if_its_state_is_not_writable(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    served.deploy("2-good", stop_after="start")

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Engine, "settle", refuse)
    served.reboot()
    assert served.live() == ("blue", "1-good")
    assert served.serves()
    monkeypatch.undo()
    served.pass_time(10)
    served.deploy("3-good")
    assert results(served)[-2:] == [("deploy", "abandoned"), ("deploy", "confirmed")]


@pytest.mark.parametrize("page", [None, b"back at noon", b"\xff"])
def test_a_stopped_panel_stays_stopped(page: bytes | None, served: World) -> None:
    """Its data may be half replaced; `panelctl start` starts it, and keeps a maintenance page of the operator."""
    if page is not None:
        served.settings.maintenance_file.write_bytes(page)
    served.reboot()
    assert "blue" in served.services
    with served.process() as engine:
        stop_start.stop(engine, CONTROLLER)
    served.reboot()
    assert served.live() == ("blue", "1-good")
    assert "blue" not in served.services
    with served.process() as engine:
        stop_start.start(engine, CONTROLLER)
    assert served.settings.maintenance_file.exists() is (page is not None)
    served.reboot()
    assert "blue" in served.services


def test_a_deploy_starts_a_stopped_panel(served: World) -> None:
    with served.process() as engine:
        stop_start.stop(engine, CONTROLLER)
    served.deploy("2-good")
    served.reboot()
    assert served.live() == ("green", "2-good")
    assert "green" in served.services


def test_a_first_boot_has_nothing_to_start(world: World) -> None:
    world.reboot()
    assert world.live() is None
    assert world.records() == []


def test_a_step_that_its_controller_abandoned_loses_the_operation(served: World) -> None:
    """The connection broke, the step continues, the controller aborts: both have the token, only one may act."""
    token = served.deploy("2-good", stop_after="start").token

    def look(process: Process) -> None:
        if served.operation_state() == "switching" and not process.engine.operation_lock._depth:
            served.look = lambda process: None
            served.step("abort", token, "the connection broke")

    served.look = look
    with pytest.raises(LostError):
        served.step("switch", token, "")
    assert served.live() == ("blue", "1-good")
    assert len(served.records()) == 2


def test_an_owner_that_continues_during_settle_is_not_settled(served: World) -> None:
    """The lease has expired, and the next step begins while the timer settles."""
    token = served.deploy("2-good", stop_after="start").token
    served.watched = False
    served.clock += served.settings.lease_seconds + 1
    with served.process() as stepping, served.process() as settling:
        look, went_on = settling.operation_lock.current, []

        def current() -> Operation | None:
            seen = look()
            if not settling.operation_lock._depth and not went_on:
                went_on.append(Deploy(stepping, token).switch())
            return seen

        settling.operation_lock.current = current  # type: ignore[method-assign]
        settling.settle()
    served.pass_time(10)
    operation = served.operation()
    if operation is None:
        assert (results(served)[-1], served.live()) == (("deploy", "abandoned"), ("blue", "1-good"))
    else:
        assert (operation.state, served.live()) == ("verified", ("green", "2-good"))


def test_settle_does_not_stop_the_timer_of_a_beginning_operation(served: World) -> None:
    """The operation and its timer change under one lock."""
    held: list[bool] = []

    class Watching(Process):
        def watch(self, on: bool) -> None:
            held.append(bool(self.engine and self.engine.operation_lock._depth))
            super().watch(on)

    process = served.spawn()
    process.__class__ = Watching
    process.engine = Engine(served.settings, process)
    process.engine.settle()
    Deploy(process.engine).lock(CONTROLLER)
    assert held == [True, True]


# --- switches ---------------------------------------------------------------------------------------------------------


def test_a_rollback_to_a_started_slot_is_one_rename(served: World) -> None:
    served.deploy("2-good")
    before = served.clock
    move(served, reason="it looks wrong")
    assert served.live() == ("blue", "1-good")
    assert served.clock - before < 1.0
    assert results(served)[-1] == ("rollback", "confirmed")
    assert served.retiring == {"green"}


def test_a_rollback_starts_a_stopped_slot(served: World) -> None:
    served.deploy("2-good")
    served.run_retiring()
    move(served)
    assert served.live() == ("blue", "1-good")
    assert served.serves()


def test_a_second_rollback_to_the_bad_release_is_refused_unless_forced(served: World) -> None:
    served.deploy("2-good")
    move(served, reason="slow")
    with pytest.raises(RefusedError, match=r"2-good.*marked bad.*slow.*--force"):
        move(served)
    assert served.live() == ("blue", "1-good")
    assert served.operation() is None
    move(served, force=True)
    assert served.live() == ("green", "2-good")


def test_a_rollback_reverts_an_unconfirmed_switch(served: World) -> None:
    token = served.deploy("2-good", stop_after="switch").token
    move(served)
    assert served.live() == ("blue", "1-good")
    assert served.records()[-1]["reason"] == "rolled back by bob"
    assert results(served)[-1] == ("deploy", "reverted")
    with pytest.raises(LostError):
        served.step("confirm", token, "")
    with pytest.raises(RefusedError, match="marked bad"):
        move(served)


def test_a_rollback_reports_that_the_previous_slot_does_not_start(served: World) -> None:
    served.deploy("2-good", stop_after="switch")
    served.halt("blue")
    served.modes["1-good"] = "dies"
    with pytest.raises(UnhealthyError, match="blue does not start"):
        move(served)
    assert served.live() == ("green", "2-good")
    assert served.serves()
    assert results(served)[-1] == ("deploy", "confirmed")
    assert "kept" in served.records()[-1]["reason"]


def test_a_repeated_rollback_does_not_revert_the_first(served: World) -> None:
    served.deploy("2-good")
    move(served, confirm=False)
    assert served.live() == ("blue", "1-good")
    with pytest.raises(BusyError):
        move(served)
    assert served.live() == ("blue", "1-good")
    with served.process() as engine:
        switch.confirm(engine)
    assert results(served)[-1] == ("rollback", "confirmed")


def test_an_overdue_switch_is_reverted_and_a_confirmed_one_stays(served: World) -> None:
    served.deploy("2-good")
    move(served, "switch", "blue", confirm=False)
    assert served.live() == ("blue", "1-good")
    served.pass_time(served.settings.confirm_seconds + 10)
    assert served.live() == ("green", "2-good")
    assert results(served)[-1] == ("switch", "reverted")
    with served.process() as engine, pytest.raises(RefusedError, match="no switch waits"):
        switch.confirm(engine)
    move(served, "switch", "blue", confirm=False, force=True)
    with served.process() as engine:
        switch.confirm(engine)
    served.pass_time(served.settings.confirm_seconds + 10)
    assert served.live() == ("blue", "1-good")


@pytest.mark.parametrize("target", ["blue", "green"])
def test_a_switch_to_the_live_slot_does_nothing(served: World, target: str) -> None:
    served.deploy("2-good")
    lines = len(served.records())
    with served.process() as engine:
        done = switch.switch(engine, SwitchRequest("switch", target), PERSON)
    assert (done is None) == (target == "green")
    assert len(served.records()) == lines + (target == "blue")
    assert served.operation() is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda world: None, "never had a release"),
        (lambda world: world.deploy("2-good", stop_after="prepare"), "was removed"),
        (lambda world: world.deploy("2-good", stop_after="prepare"), "was interrupted"),
    ],
)
def test_a_slot_that_cannot_be_started_is_refused_with_the_reason(served: World, harm, message: str) -> None:
    harm(served)
    served.pass_time(400)
    if message == "was removed":
        (served.settings.base_dir / "releases/2-good/release.json").unlink()
    elif message == "was interrupted":
        served.write_env("green", "1-good")
    with pytest.raises(RefusedError, match=message):
        move(served, "switch", "inactive")
    assert served.live() == ("blue", "1-good")


def test_a_release_that_was_never_healthy_is_refused_unless_forced(served: World) -> None:
    served.deploy("2-good", stop_after="prepare")
    served.pass_time(400)
    assert results(served)[-1] == ("deploy", "abandoned")
    with pytest.raises(RefusedError, match=r"never healthy.*abandoned.*--force"):
        move(served, "switch", "inactive")
    move(served, "switch", "inactive", force=True)
    assert served.live() == ("green", "2-good")


def test_an_unknown_target_is_refused(served: World) -> None:
    with pytest.raises(RefusedError, match="'red'; valid targets: blue, green, inactive, previous"):
        move(served, "switch", "red")


def test_a_switch_to_an_unhealthy_slot_leaves_traffic_untouched(served: World) -> None:
    served.deploy("2-good")
    served.modes["1-good"] = "sick"
    with pytest.raises(UnhealthyError, match="not healthy within"):
        move(served)
    assert served.live() == ("green", "2-good")
    assert results(served)[-1] == ("rollback", "failed")


# --- unattended -------------------------------------------------------------------------------------------------------


def test_a_release_that_breaks_in_the_safety_period_is_rolled_back(served: World) -> None:
    served.deploy("2-good")
    served.modes["2-good"] = "breaks"
    before = served.clock
    with served.process() as engine:
        told = unattended.retire(engine, "blue")
    assert "rolled back" in told
    assert served.clock - before < 10.0
    assert served.live() == ("blue", "1-good")
    assert results(served)[-1] == ("rollback", "confirmed")
    assert served.records()[-1]["who"] == "the host"
    served.retiring = {"green"}
    served.run_retiring()
    assert list(served.services) == ["blue"]


def test_a_release_that_breaks_after_the_safety_period_stays_live(served: World) -> None:
    served.deploy("2-good")
    served.run_retiring()
    served.modes["2-good"] = "breaks"
    served.pass_time(100)
    assert served.live() == ("green", "2-good")


def test_a_missing_nginx_causes_no_rollback(served: World) -> None:
    served.deploy("2-good")
    served.nginx = False
    served.run_retiring()
    assert served.live() == ("green", "2-good")


def test_an_unhealthy_previous_slot_is_still_stopped(served: World) -> None:
    """The live release is unhealthy, and so is the previous one: the retirement must end anyway."""
    served.deploy("2-good")
    served.modes["2-good"] = "breaks"

    def look(process: Process) -> None:
        operation = process.engine.operation_lock.current() if process.engine else None
        served.modes["1-good"] = "sick" if operation and operation.kind == "rollback" else "good"

    served.look = look
    with served.process() as engine:
        assert unattended.retire(engine, "blue") == "drained and stopped"
    assert served.live() == ("green", "2-good")
    assert list(served.services) == ["green"]
    assert served.operation() is None


@pytest.mark.parametrize(("leave_at", "stopped_at"), [(50.0, 50.0), (1e9, 300.0)])
def test_retiring_waits_for_open_connections_up_to_the_drain_time(
    served: World, leave_at: float, stopped_at: float
) -> None:
    served.deploy("2-good")
    switched = served.clock
    served.connections["blue"] = 1

    def look(process: Process) -> None:
        if served.clock - switched >= leave_at:
            served.connections["blue"] = 0

    served.look = look
    served.run_retiring()
    assert "blue" not in served.services
    assert stopped_at <= served.clock - switched <= stopped_at + 2.0


def test_a_slot_that_is_live_again_is_not_stopped(served: World) -> None:
    served.deploy("2-good")
    move(served)
    with served.process() as engine:
        assert unattended.retire(engine, "blue") == "it is live again"
    assert "blue" in served.services


def test_the_status_shows_what_is_observed(served: World) -> None:
    served.deploy("2-good", stop_after="switch")
    with served.process() as engine:
        told = describe(engine)
    assert (told["live"], told["release"], told["healthy"], told["problem"]) == ("green", "2-good", True, "")
    assert told["operation"]["state"] == "verified"
    assert 0 < told["operation"]["confirm_within"] <= 60
    assert told["slots"]["blue"] == {
        "release": "1-good",
        "uptime": 90_061.0,
        "live": False,
        "listening": True,
        "healthy": True,
        "connections": 0,
        "health": "200 from release 1-good in slot blue: empty",
    }
    lines = render.status(told).splitlines()
    assert lines[0] == "green is live with 2-good: healthy"
    assert ["blue", "1-good", "started", "healthy", "1", "d", "1", "h", "0"] in [line.split() for line in lines]
    assert any("will be reverted in" in line for line in lines)
