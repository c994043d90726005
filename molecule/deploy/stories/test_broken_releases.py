# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are broken, each in its own way: the old colour serves on, untouched, or has traffic back at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from kit.hosts import wait_until

from driver import (
    SCENARIO,
    SLACK,
    Host,
    Play,
    Visitor,
    copy_release,
    deploy,
    everywhere,
    play,
    setting,
    settled,
    slots,
    sound,
    visited,
)

HEALTHY_TIMEOUT = 8  # seconds, where a story waits for it
ADDITION = """
from alembic import op

revision = "story"
down_revision = "0003"


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
"""


def refused(hosts: list[Host], result: str = "failed", **variables: object) -> Play:
    """Deploy what must not come into service. No visitor notices, and the process that serves stays the same."""
    pids = {host: host.main_pid(host.status()["live"]) for host in hosts}
    before = everywhere(hosts, Host.status)
    with visited(hosts):
        tried = play("deploy", **variables)
    assert not tried.ok
    for host in hosts:
        assert tried.failed(host) == 1
        last = settled(host, result)
        live = host.status()["live"]
        assert (live, host.status()["release"]) == (before[host]["live"], before[host]["release"])
        assert host.main_pid(live) == pids[host]
        assert last["reason"]
        assert f"Slot {live} serves release {before[host]['release']}, untouched." in tried.output
        # Only what was tried may have failed.
        idle = {"blue": "green", "green": "blue"}[live]
        assert all(f"@{idle}.service" in unit for unit in host.failed_units()), host.failed_units()
    return tried


def test_it_does_not_build(hosts: list[Host]) -> None:
    """The message says which step failed, and its last lines."""
    place = copy_release("unbuildable")
    (place / "requirements.txt").write_text("no-such-package-as-this-one==1.0\n")
    tried = refused(hosts, panel_source=str(place))
    assert "no-such-package-as-this-one" in tried.output
    assert re.search(r"requirements", tried.output)


def test_it_does_not_import(hosts: list[Host]) -> None:
    """Found out as soon as it has died a few times, not when the time is over; what it said is shown."""
    place = copy_release("unimportable", {"import_error": "a story of mine"})
    tried = refused(hosts, panel_source=str(place), app_healthy_timeout=300)
    assert "a story of mine" in tried.output
    assert "it is in a crash loop" in tried.output
    assert tried.seconds < 300
    # Insisted on, it is still not given traffic.
    host = hosts[0]
    assert "marked bad" in host.panelctl("switch", "inactive", status=4)


def test_it_boots_too_slowly(hosts: list[Host]) -> None:
    """The time is over before it is healthy."""
    place = copy_release("slow", {"boot_seconds": 60})
    tried = refused(hosts, panel_source=str(place), app_healthy_timeout=HEALTHY_TIMEOUT)
    assert f"it was not healthy within {HEALTHY_TIMEOUT} s" in tried.output


def test_its_websockets_fail(hosts: list[Host]) -> None:
    """The runtime's health is well, but a visitor's WebSocket is not."""
    tried = refused(hosts, panel_source=str(copy_release("no-websockets", {"healthy_seconds": 0})))
    assert "no WebSocket at /ws_panel" in tried.output


@pytest.mark.always
def test_its_front_page_fails(hosts: list[Host]) -> None:
    """Seen only by who asks for a page, through nginx, after the switch: traffic goes back."""
    place = copy_release("no-front-page")
    pages = place / "BTPanel/pages.py"
    broken = pages.read_text().replace(
        "def landing() -> str:", "def landing() -> str:\n    raise RuntimeError('story')"
    )
    pages.write_text(broken)
    tried = refused(hosts, "reverted", panel_source=str(place))
    assert "through nginx: /:" in tried.output
    for host in hosts:
        assert 0 < host.history()[-1]["restore_seconds"] < 10
        sound(host)


def test_another_release_answers(hosts: list[Host]) -> None:
    """Healthy, but not what was asked for."""
    settings = {"app_settings": "{{ panel_settings | combine({'AAPANEL_RELEASE': 'another'}) }}"}
    tried = refused(hosts, app_healthy_timeout=HEALTHY_TIMEOUT, **settings)
    assert "answers" in tried.output
    assert "another release than" in tried.output


def test_its_port_is_taken(hosts: list[Host]) -> None:
    """Somebody else listens where the idle slot wants to, and has begun when the deploy was on its way already."""
    try:
        hooks = {"before_start": str(SCENARIO / "hooks/squat.yml")}
        tried = refused(hosts, panel_hooks=hooks, **setting("squatted"))
        # Now it is seen before anything is done.
        journals = everywhere(hosts, Host.history)
        early = play("deploy", **setting("squatted"))
        assert not early.ok
        assert "python3" in early.output
        assert everywhere(hosts, Host.history) == journals
    finally:
        everywhere(hosts, lambda host: host.run("systemctl", "stop", "squatter", check=False))
    assert "already in use" in tried.output


def test_its_migration_fails(hosts: list[Host]) -> None:
    """Before it was started at all; the message is the migration's own."""
    place = copy_release("unmigratable")
    raising = "raise RuntimeError('a migration of mine')"
    (place / "migrations/versions/story.py").write_text(ADDITION.format(upgrade=raising, downgrade="pass"))
    tried = refused(hosts, panel_source=str(place))
    assert "a migration of mine" in tried.output


@pytest.fixture
def migrated_back(hosts: list[Host]) -> Iterator[None]:
    """The database as it was, afterwards."""
    yield

    def downgrade(host: Host) -> None:
        release = f"/opt/aapanel/slots/{host.status()['live']}/release"
        script = f"""set -a; . /etc/aapanel/{host.status()["live"]}.env; cd {release}/app
            AAPANEL_HOME=$PWD exec runuser -u www -- ../venv/bin/alembic downgrade 0003"""
        host.run("bash", "-c", script)

    everywhere(hosts, downgrade)


@pytest.mark.usefixtures("migrated_back")
def test_its_migration_takes_something_away(hosts: list[Host]) -> None:
    """Refused, because the release that serves may need it, with the reason; done where that is allowed."""
    place = copy_release("contracting")
    drop = "op.drop_index('ix_items_created_at', table_name='items')"
    create = "op.create_index('ix_items_created_at', 'items', ['created_at'])"
    (place / "migrations/versions/story.py").write_text(ADDITION.format(upgrade=drop, downgrade=create))
    tried = refused(hosts, panel_source=str(place))
    assert "The old release may rely on the index." in tried.output
    assert "panel_migrations_contract" in tried.output
    with visited(hosts):
        deploy(panel_source=str(place), panel_migrations_contract=True)
    for host in hosts:
        settled(host, "confirmed")
        sound(host)


def test_it_breaks_in_the_safety_period(hosts: list[Host]) -> None:
    """Healthy when it was asked, and for a while: the host gives traffic back by itself."""
    before = everywhere(hosts, Host.status)
    visitors: dict[Host, Visitor] = everywhere(hosts, Visitor)
    # Long enough after its import that the deploy is over by then.
    deploy(panel_source=str(copy_release("fading", {"healthy_seconds": 20})), panel_safety_seconds=45)
    for host in hosts:
        settled(host, "confirmed")
        assert visitors[host].last["status"] == 200

    def over(host: Host) -> None:
        visitor = visitors[host]
        wait_until(lambda: visitor.last["status"] >= 500, 30.0, f"{host.name}: the release breaks")
        wait_until(lambda: visitor.last["status"] == 200, 15.0, f"{host.name}: traffic goes back")

    everywhere(hosts, over)
    for host in hosts:
        visitors[host].finish()
        visitors[host].lines.pop()
        assert visitors[host].outage() < 10
        last = settled(host, "confirmed", kind="rollback")
        assert "in the safety period: " in last["reason"]
        assert (host.status()["live"], host.status()["release"]) == (before[host]["live"], before[host]["release"])
        bad = next(iter(release for release in host.status()["bad_releases"] if release.startswith("fading-")))
        assert bad in host.panelctl("rollback", status=4)
        sound(host)


def test_it_is_broken_on_the_first_of_many(hosts: list[Host]) -> None:
    """One host after the other: the second is untouched, and the message says who is where."""
    before = everywhere(hosts, Host.status)
    journals = everywhere(hosts, Host.history)
    place = copy_release("first-only", {"import_error": "a story of the first"})
    with visited(hosts):
        tried = play("deploy", panel_source=str(place), panel_deploy_serial=1)
    assert not tried.ok
    first, second = hosts
    settled(first, "failed")
    assert second.history() == journals[second]
    assert slots(second.status()) == slots(before[second])
    assert f"{first.name} failed, so no other host is touched" in tried.output
    for host in hosts:
        assert f"{host.name}: {before[host]['release']}" in tried.output
    wait_until(lambda: first.status()["healthy"], SLACK, first.name)
