# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Broken releases: the live slot serves on untouched, or traffic returns to it within seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from kit.hosts import wait_until
from kit.playbooks import Playbook, run_playbook
from kit.programs import Visitor

from driver import (
    SCENARIO,
    SLACK,
    PanelHost,
    assert_finished,
    assert_no_failed_unit,
    changed_setting,
    copy_release,
    deploy,
    on_all,
    other_slot,
    slots,
    start_visitor,
    visited,
)

HEALTHY_TIMEOUT = 8  # seconds, in stories that wait until it is over
ADDITION = """
from alembic import op

revision = "story"
down_revision = "0003"


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
"""


def deploy_refused(hosts: list[PanelHost], result: str = "failed", **variables: object) -> Playbook:
    """Deploy a release that must not go live. No visit fails, and the serving process stays the same."""
    pids = {host: host.main_pid(host.status()["live"]) for host in hosts}
    before = on_all(hosts, PanelHost.status)
    with visited(hosts):
        tried = run_playbook("deploy", **variables)
    assert not tried.ok
    for host in hosts:
        assert tried.failed(host) == 1
        last = assert_finished(host, result)
        live = host.status()["live"]
        assert (live, host.status()["release"]) == (before[host]["live"], before[host]["release"])
        assert host.main_pid(live) == pids[host]
        assert last["reason"]
        assert f"Slot {live} serves release {before[host]['release']}, untouched." in tried.output
        # Only a unit of the slot that was tried may have failed.
        idle = other_slot(live)
        assert all(f"@{idle}.service" in unit for unit in host.failed_units()), host.failed_units()
    return tried


def test_a_release_that_does_not_build_is_refused(hosts: list[PanelHost]) -> None:
    """The message names the failed step, and has its last lines."""
    place = copy_release("unbuildable")
    (place / "requirements.txt").write_text("no-such-package-as-this-one==1.0\n")
    tried = deploy_refused(hosts, panel_source=str(place))
    assert "no-such-package-as-this-one" in tried.output
    assert re.search(r"requirements", tried.output)


def test_a_release_that_does_not_import_is_refused(hosts: list[PanelHost]) -> None:
    """It is refused after a few crashes, long before the timeout; its output is shown."""
    place = copy_release("unimportable", {"import_error": "a story of mine"})
    tried = deploy_refused(hosts, panel_source=str(place), app_healthy_timeout=300)
    assert "a story of mine" in tried.output
    assert "it is in a crash loop" in tried.output
    assert tried.seconds < 300
    # A switch by hand does not give it traffic either.
    host = hosts[0]
    assert "marked bad" in host.panelctl("switch", "inactive", status=4)


def test_a_release_that_boots_too_slowly_is_refused(hosts: list[PanelHost]) -> None:
    """The timeout passes before it is healthy."""
    place = copy_release("slow", {"boot_seconds": 60})
    tried = deploy_refused(hosts, panel_source=str(place), app_healthy_timeout=HEALTHY_TIMEOUT)
    assert f"it was not healthy within {HEALTHY_TIMEOUT} s" in tried.output


def test_a_release_without_websockets_is_refused(hosts: list[PanelHost]) -> None:
    """Its health endpoints are fine, but a visitor's WebSocket is refused."""
    tried = deploy_refused(hosts, panel_source=str(copy_release("no-websockets", {"healthy_seconds": 0})))
    assert "no WebSocket at /ws_panel" in tried.output


@pytest.mark.always
def test_a_release_whose_front_page_fails_is_reverted(hosts: list[PanelHost]) -> None:
    """Only a page requested through nginx shows it, after the switch: traffic returns."""
    place = copy_release("no-front-page")
    pages = place / "BTPanel/pages.py"
    broken = pages.read_text().replace(
        "def landing() -> str:", "def landing() -> str:\n    raise RuntimeError('story')"
    )
    pages.write_text(broken)
    tried = deploy_refused(hosts, "reverted", panel_source=str(place))
    assert "through nginx: /:" in tried.output
    for host in hosts:
        assert 0 < host.history()[-1]["restore_seconds"] < 10
        assert_no_failed_unit(host)


def test_a_slot_that_answers_as_another_release_is_refused(hosts: list[PanelHost]) -> None:
    """It is healthy, but it is not the release that was deployed."""
    settings = {"app_settings": "{{ panel_settings | combine({'AAPANEL_RELEASE': 'another'}) }}"}
    tried = deploy_refused(hosts, app_healthy_timeout=HEALTHY_TIMEOUT, **settings)
    assert "answers" in tried.output
    assert "another release than" in tried.output


def test_a_taken_port_is_reported(hosts: list[PanelHost]) -> None:
    """Another program takes the idle slot's port during a deploy; the next deploy finds that before it begins."""
    try:
        hooks = {"before_start": str(SCENARIO / "hooks/squat.yml")}
        tried = deploy_refused(hosts, panel_hooks=hooks, **changed_setting("squatted"))
        journals = on_all(hosts, PanelHost.history)
        early = run_playbook("deploy", **changed_setting("squatted"))
        assert not early.ok
        assert "python3" in early.output
        assert on_all(hosts, PanelHost.history) == journals
    finally:
        on_all(hosts, lambda host: host.run("systemctl", "stop", "squatter", check=False))
    assert "already in use" in tried.output


def test_a_failing_migration_fails_the_deploy(hosts: list[PanelHost]) -> None:
    """The release is not started; the message is the migration's own."""
    place = copy_release("unmigratable")
    raising = "raise RuntimeError('a migration of mine')"
    (place / "migrations/versions/story.py").write_text(ADDITION.format(upgrade=raising, downgrade="pass"))
    tried = deploy_refused(hosts, panel_source=str(place))
    assert "a migration of mine" in tried.output


@pytest.fixture
def downgraded_database(hosts: list[PanelHost]) -> Iterator[None]:
    """Undo the story's migration afterwards."""
    yield

    def downgrade(host: PanelHost) -> None:
        release = f"/opt/aapanel/slots/{host.status()['live']}/release"
        script = f"""set -a; . /etc/aapanel/{host.status()["live"]}.env; cd {release}/app
            AAPANEL_HOME=$PWD exec runuser -u www -- ../venv/bin/alembic downgrade 0003"""
        host.run("bash", "-c", script)

    on_all(hosts, downgrade)


@pytest.mark.usefixtures("downgraded_database")
def test_a_contract_migration_needs_permission(hosts: list[PanelHost]) -> None:
    """It is refused with the reason, because the live release may need what it drops; allowed, it is applied."""
    place = copy_release("contracting")
    drop = "op.drop_index('ix_items_created_at', table_name='items')"
    create = "op.create_index('ix_items_created_at', 'items', ['created_at'])"
    (place / "migrations/versions/story.py").write_text(ADDITION.format(upgrade=drop, downgrade=create))
    tried = deploy_refused(hosts, panel_source=str(place))
    assert "The previous release may rely on the index." in tried.output
    assert "panel_migrations_contract" in tried.output
    with visited(hosts):
        deploy(panel_source=str(place), panel_migrations_contract=True)
    for host in hosts:
        assert_finished(host, "confirmed")
        assert_no_failed_unit(host)


def test_a_release_that_breaks_in_the_safety_period_is_rolled_back(hosts: list[PanelHost]) -> None:
    """It is healthy for a while after the deploy; then the host returns traffic automatically."""
    before = on_all(hosts, PanelHost.status)
    visitors: dict[PanelHost, Visitor] = on_all(hosts, start_visitor)
    # The release breaks so many seconds after its import, when the deploy is over.
    deploy(panel_source=str(copy_release("fading", {"healthy_seconds": 20})), panel_safety_seconds=45)
    for host in hosts:
        assert_finished(host, "confirmed")
        assert visitors[host].last["status"] == 200

    def rolled_back(host: PanelHost) -> None:
        visitor = visitors[host]
        wait_until(lambda: visitor.last["status"] >= 500, 30.0, f"{host.name}: the release breaks")
        wait_until(lambda: visitor.last["status"] == 200, 15.0, f"{host.name}: traffic returns")

    on_all(hosts, rolled_back)
    for host in hosts:
        visitors[host].finish()
        assert visitors[host].outage() < 10
        last = assert_finished(host, "confirmed", kind="rollback")
        assert "in the safety period: " in last["reason"]
        assert (host.status()["live"], host.status()["release"]) == (before[host]["live"], before[host]["release"])
        bad = next(iter(release for release in host.status()["bad_releases"] if release.startswith("fading-")))
        assert bad in host.panelctl("rollback", status=4)
        assert_no_failed_unit(host)


def test_a_serial_deploy_stops_at_the_first_failed_host(hosts: list[PanelHost]) -> None:
    """One host after the other: the second is untouched, and the message says which release each host serves."""
    before = on_all(hosts, PanelHost.status)
    journals = on_all(hosts, PanelHost.history)
    place = copy_release("first-only", {"import_error": "a story of the first"})
    with visited(hosts):
        tried = run_playbook("deploy", panel_source=str(place), panel_deploy_serial=1)
    assert not tried.ok
    first, second = hosts
    assert_finished(first, "failed")
    assert second.history() == journals[second]
    assert slots(second.status()) == slots(before[second])
    assert f"{first.name} failed, so no other host is touched" in tried.output
    for host in hosts:
        assert f"{host.name}: {before[host]['release']}" in tried.output
    wait_until(lambda: first.status()["healthy"], SLACK, first.name)
