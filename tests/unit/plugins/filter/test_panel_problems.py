# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.aapanel.pipeline.plugins.filter.panel_problems import FilterModule, panel_problems

SPECS: dict[str, dict[str, object]] = {"panel_domain": {"type": "str"}, "panel_secret_key": {"type": "str"}}


class RaisingList(list):
    def __getitem__(self, index: object) -> object:
        value = super().__getitem__(index)
        if isinstance(value, Exception):
            raise value
        return value


def test_filter_accepts_values_that_raise() -> None:
    names = ["panel_domain", "panel_secret_key", "panel_domian"]
    values = RaisingList(["CHANGE-ME", RuntimeError("undefined"), RuntimeError("undefined")])
    found = FilterModule().filters()["panel_problems"](names, SPECS, values=values, required=["panel_secret_key"])
    assert [problem.split(":")[0] for problem in found] == ["panel_domian", "panel_domain", "panel_secret_key"]


def test_filter_accepts_a_dictionary_or_fewer_values_than_names() -> None:
    assert panel_problems({"panel_domain": "x"}, SPECS) == []
    assert panel_problems(["panel_domain"], SPECS) == []
