# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.history import (
    RESULTS,
    History,
    bad_releases,
    kpis,
    textfile,
)
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families


def record(generation: int = 1, result: str = "confirmed", kind: str = "deploy", **changes: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "kind": kind,
        "who": "ann",
        "began": "then",
        "ended": "now",
        "source": {"slot": "blue", "release": "1"},
        "target": {"slot": "green", "release": "2"},
        "durations": {"locked": 1.0, "switched": 0.002},
        "result": result,
        "reason": "",
        "restore_seconds": None,
        "ended_at": {"boot_id": "b", "seconds": 5.0},
        **changes,
    }


@pytest.fixture
def journal(tmp_path: Path) -> History:
    return History(tmp_path / "journal.jsonl")


def test_records_are_read_in_order(journal: History) -> None:
    assert journal.read() == []
    for generation in (1, 2, 3):
        journal.append(record(generation))
    assert journal.read() == [record(1), record(2), record(3)]


def test_an_incomplete_line_is_skipped_and_not_joined_with_the_next(journal: History) -> None:
    journal.append(record(1))
    whole = journal.file.read_bytes()
    journal.append(record(2))
    both = journal.file.read_bytes()
    for length in range(len(whole), len(both)):
        journal.file.write_bytes(both[:length])
        journal.append(record(3))
        # If only the newline is missing, the second line is complete.
        assert [line["generation"] for line in journal.read()] == ([1, 2, 3] if length == len(both) - 1 else [1, 3])


@pytest.mark.parametrize("line", ["[]", "1", "{}", '{"generation": 9}', "\x00" * 9, "half"])
def test_an_invalid_line_is_skipped(journal: History, line: str) -> None:
    journal.append(record(1))
    with journal.file.open("a") as stream:
        stream.write(f"{line}\n")
    journal.append(record(2))
    assert [line["generation"] for line in journal.read()] == [1, 2]


@given(reason=st.text())
def test_any_reason_fits_in_one_line(tmp_path_factory: pytest.TempPathFactory, reason: str) -> None:
    journal = History(tmp_path_factory.mktemp("j") / "journal.jsonl")
    journal.append(record(1, reason=reason))
    journal.append(record(2))
    assert [line["reason"] for line in journal.read()] == [reason, ""]


@pytest.mark.parametrize("reason", ["\u2028", "\x85", "Grüße", os.fsdecode(b"\xff broken argv")])
def test_invalid_unicode_fits_in_one_line(journal: History, reason: str) -> None:
    journal.append(record(1, reason=reason))
    assert journal.read() == [record(1, reason=reason)]


def test_a_short_write_is_continued(journal: History) -> None:
    write = os.write
    with mock.patch("os.write", lambda descriptor, data: write(descriptor, data[:10])):
        journal.append(record(1))
    assert journal.read() == [record(1)]


def test_all_accounts_may_read_the_history(journal: History) -> None:
    journal.append(record(1))
    assert journal.file.stat().st_mode & 0o777 == 0o644


# --- bad releases -----------------------------------------------------------------------------------------------------

LEFT = {"source": {"slot": "green", "release": "2"}, "target": {"slot": "blue", "release": "1"}}


@pytest.mark.parametrize(
    ("records", "bad"),
    [
        ([], set()),
        ([record()], set()),
        ([record(result="failed")], {"2"}),
        ([record(result="reverted")], {"2"}),
        ([record(result="abandoned")], set()),
        ([record(result="failed"), record(2)], set()),
        ([record(), record(2, kind="rollback", **LEFT)], {"2"}),
        ([record(), record(2, kind="switch", **LEFT)], set()),
        ([record(), record(2, kind="rollback", result="failed", **LEFT)], {"1"}),
        ([record(result="failed", target={"slot": "green", "release": None})], set()),
        ([record(result="failed", target={"slot": "green", "release": "1"})], set()),
    ],
    ids=str,
)
def test_the_last_operation_decides_whether_a_release_is_bad(records: list[dict[str, Any]], bad: set[str]) -> None:
    assert set(bad_releases(records)) == bad


def test_a_bad_release_has_a_reason() -> None:
    assert bad_releases([record(result="failed", reason="no database")])["2"] == "failed at now: no database"


# --- metrics ----------------------------------------------------------------------------------------------------------

STORY = [
    record(1, durations={"locked": 2.0, "switched": 0.004}),
    record(2, "failed", durations={"locked": 9.0}),
    record(3, durations={"locked": 4.0, "switched": 0.002}),
    record(4, "reverted", durations={"locked": 1.0, "switched": 0.003}, restore_seconds=0.6),
    record(5, kind="rollback", durations={"switched": 0.001}, restore_seconds=0.2, **LEFT),
]


def test_metrics_are_computed_from_the_records() -> None:
    figures = kpis(STORY)
    assert {name: figures[name] for name in figures if name.startswith("deploys")} == {
        "deploys": 4,
        "deploys_confirmed": 2,
        "deploys_failed": 1,
        "deploys_reverted": 1,
        "deploys_abandoned": 0,
    }
    assert figures["success_rate"] == 0.5
    assert figures["rollbacks"] == 1
    assert figures["lead_seconds_last"] == pytest.approx(4.002)
    assert figures["lead_seconds_mean"] == pytest.approx(3.003)
    assert figures["switch_seconds_last"] == 0.001
    assert figures["restore_seconds_mean"] == pytest.approx(0.4)


def test_a_host_without_deploys_has_no_success_rate() -> None:
    assert kpis([]) == {**{f"deploys_{result}": 0 for result in RESULTS}, "deploys": 0, "rollbacks": 0}


@pytest.mark.parametrize("records", [[], STORY], ids=["none", "some"])
def test_prometheus_reads_the_metrics(records: list[dict[str, Any]]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(textfile(records))}
    assert all(family.documentation for family in families.values())
    deploys = families["aapanel_deploys"]
    assert deploys.type == "counter"
    assert {sample.labels["result"] for sample in deploys.samples} == set(RESULTS)
    assert sum(sample.value for sample in deploys.samples) == (4 if records else 0)
    assert ("aapanel_deploy_success_rate" in families) == bool(records)
    if records:
        assert families["aapanel_deploy_success_rate"].samples[0].value == 0.5
        assert families["aapanel_deploy_switch_seconds_last"].samples[0].value == 0.001
        assert families["aapanel_deploy_switch_seconds_last"].type == "gauge"


def test_each_line_is_json(journal: History) -> None:
    journal.append(record(1, reason="Grüße"))
    line = journal.file.read_text()
    assert "Grüße" in line
    assert json.loads(line) == record(1, reason="Grüße")
