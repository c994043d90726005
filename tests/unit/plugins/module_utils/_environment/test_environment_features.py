# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.detect import CAPABILITIES
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.features import FEATURES, Feature, decide
from hypothesis import given
from hypothesis import strategies as st

EVERYTHING = dict.fromkeys(CAPABILITIES, True)
NOTHING = dict.fromkeys(CAPABILITIES, False)


def test_server_has_all_features() -> None:
    decisions, problems = decide(EVERYTHING)
    assert problems == []
    assert all(decision.enabled and decision.reason == "" for decision in decisions.values())
    assert decisions["service"].value == "systemd"


def test_machine_without_root_uses_supervisor_with_a_reason() -> None:
    decisions, problems = decide(NOTHING)
    assert problems == []
    on = {name for name, decision in decisions.items() if decision.enabled}
    assert on == {"service"}
    assert decisions["service"].value == "supervisor"
    assert "systemd as pid 1" in decisions["service"].reason
    assert decisions["nginx"].reason.startswith("needs root (become) to bind port 80 and write /etc/nginx")
    assert all(decision.reason for decision in decisions.values())


def test_root_without_systemd_can_install_but_not_run_nginx() -> None:
    decisions, _ = decide({**EVERYTHING, "systemd": False})
    assert decisions["system_packages"].enabled
    assert decisions["system_user"].enabled
    assert not decisions["nginx"].enabled
    assert "root" not in decisions["nginx"].reason
    assert decisions["service"].value == "supervisor"


def test_two_colours_need_nginx() -> None:
    decisions, problems = decide(EVERYTHING, {"nginx": False})
    assert problems == []
    assert decisions["nginx"].reason == "switched off by request"
    assert not decisions["two_colours"].enabled
    assert decisions["two_colours"].reason == "needs nginx (off) to switch between them"


@pytest.mark.parametrize("choice", [True, "true", "yes", "True", "on"])
def test_impossible_choice_is_a_problem(choice: object) -> None:
    decisions, problems = decide(NOTHING, {"nginx": choice})
    assert not decisions["nginx"].enabled
    assert len(problems) == 1
    assert problems[0].startswith("features.nginx is true, which is impossible on this host: needs root (become)")
    assert "set it to auto" in problems[0]


def test_contradictory_choices_are_a_problem() -> None:
    _, problems = decide(EVERYTHING, {"two_colours": True, "nginx": False})
    (problem,) = problems
    assert problem == (
        "features.two_colours is true, which is impossible on this host: needs nginx (off) to switch between them; "
        "set it to auto, or provide what is missing"
    )


def test_possible_choices_are_no_problem() -> None:
    assert decide(EVERYTHING, {row.name: True for row in FEATURES if row.values is None})[1] == []


def test_service_can_be_chosen() -> None:
    decisions, problems = decide(EVERYTHING, {"service": "supervisor"})
    assert (decisions["service"].value, problems) == ("supervisor", [])
    decisions, problems = decide(NOTHING, {"service": "systemd"})
    assert decisions["service"].value == "supervisor"
    assert problems[0].startswith("features.service is systemd, which is impossible on this host")


def test_schedule_uses_cron_without_systemd_and_is_off_without_both() -> None:
    decisions, problems = decide({**NOTHING, "cron": True})
    assert (decisions["schedule"].value, problems) == ("cron", [])
    assert decisions["schedule"].reason.startswith("not systemd: needs root (become) to write its timers")
    decisions, problems = decide(NOTHING)
    assert (decisions["schedule"].enabled, decisions["schedule"].value, problems) == (False, None, [])
    assert decisions["schedule"].reason == (
        "needs root (become) to write its timers and systemd as pid 1 to keep the time, "
        "or else a running cron daemon to keep the time"
    )


def test_schedule_can_be_chosen_if_possible() -> None:
    decisions, problems = decide(EVERYTHING, {"schedule": "cron"})
    assert (decisions["schedule"].value, decisions["schedule"].reason, problems) == ("cron", "chosen by request", [])
    decisions, problems = decide({**EVERYTHING, "cron": False}, {"schedule": "cron"})
    assert not decisions["schedule"].enabled
    assert problems[0].startswith(
        "features.schedule is cron, which is impossible on this host: needs a running cron daemon to keep"
    )
    decisions, problems = decide({**NOTHING, "cron": True}, {"schedule": "systemd"})
    assert decisions["schedule"].value == "cron"
    assert problems[0].startswith("features.schedule is systemd, which is impossible on this host: needs root (become)")


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"ngnix": True}, "features.ngnix: unknown feature; did you mean nginx?"),
        ({"zzz": True}, "features.zzz: unknown feature; valid names: service, "),
        ({"redis": "maybe"}, "features.redis: invalid value 'maybe'; valid values: auto, true, false"),
        ({"service": True}, "features.service: invalid value True; valid values: auto, systemd, supervisor"),
    ],
)
def test_invalid_choice(requested: dict, message: str) -> None:
    decisions, problems = decide(EVERYTHING, requested)
    assert len(problems) == 1
    assert problems[0].startswith(message)
    # An invalid choice is ignored.
    assert decisions == decide(EVERYTHING)[0]


def test_table_refers_only_to_rows_above_and_known_capabilities() -> None:
    seen: set[str] = set()
    for row in FEATURES:
        assert set(row.features) <= seen
        assert {*row.capabilities, *row.otherwise} <= set(CAPABILITIES)
        seen.add(row.name)
    assert len(seen) == len(FEATURES)


def test_a_new_feature_is_one_row() -> None:
    table = (*FEATURES, Feature("ufw", capabilities={"netfilter": "to set rules"}, features={"nginx": "to guard"}))
    decisions, _ = decide({**EVERYTHING, "netfilter": False}, table=table)
    assert decisions["ufw"].reason == "needs the right to manage netfilter to set rules"


@given(
    capabilities=st.dictionaries(st.sampled_from(CAPABILITIES), st.booleans()),
    requested=st.dictionaries(
        st.sampled_from([row.name for row in FEATURES]) | st.text(), st.none() | st.booleans() | st.text()
    ),
)
def test_any_input_gets_decisions_with_reasons(capabilities: dict, requested: dict) -> None:
    decisions, problems = decide(capabilities, requested)
    assert set(decisions) == {row.name for row in FEATURES}
    for row in FEATURES:
        decision = decisions[row.name]
        assert decision.enabled or decision.reason
        # An enabled feature has everything that it needs.
        if decision.enabled and row.values is None:
            assert all(capabilities.get(name) for name in row.capabilities)
            assert all(decisions[name].enabled for name in row.features)
        # A required feature is enabled or reported.
        if requested.get(row.name) is True and row.values is None:
            assert decision.enabled or any(row.name in problem for problem in problems)
