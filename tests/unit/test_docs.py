# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages in docs/ say what is so: generated tables are up to date, links and make targets exist."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def load_generator():
    spec = spec_from_loader("docs", SourceFileLoader("docs", str(ROOT / "scripts" / "docs")))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


def by_name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("path", GENERATOR.PAGES, ids=by_name)
def test_the_tables_are_up_to_date(path):
    page = path.read_text(encoding="utf-8")
    assert GENERATOR.render(page) == page, "run: make docs"


def test_every_role_and_every_panel_variable_is_in_a_table():
    page = GENERATOR.PAGE.read_text(encoding="utf-8")
    names = {name for path in ROOT.glob("roles/*/defaults/main.yml") for name in yaml.safe_load(path.read_text())}
    assert {name for name in names if f"| `{name}` |" not in page} == set()


def test_a_stale_table_is_replaced_and_text_by_hand_is_kept():
    page = "before\n<!-- begin panel -->\nold | stuff\n<!-- end panel -->\nafter\n"
    new = GENERATOR.render(page)
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old | stuff" not in new
    assert "| `panel_domain` | `localhost` |" in new


def test_a_mark_that_names_no_table_is_an_error():
    with pytest.raises(KeyError, match="pannel"):
        GENERATOR.render("<!-- begin pannel --><!-- end pannel -->")


def test_a_bar_in_a_cell_does_not_make_a_column():
    assert GENERATOR.table(("a",), [("`x | y`",)]).splitlines()[-1] == r"| `x \| y` |"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_to_files_that_exist(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_make_targets_exist(page):
    named = set(re.findall(r"(?:`|\$ |[A-Z]+=\S+ )make ([a-z-]+)", page.read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_variables_that_are_named_exist(page):
    known = {name for path in ROOT.glob("roles/*/defaults/main.yml") for name in yaml.safe_load(path.read_text())}
    known |= {row.name for row in GENERATOR.FEATURES}
    roles = "|".join(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    by_hand = re.sub(r"<!-- begin .*?<!-- end", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    # At the beginning of a code span, or of a line of YAML.
    named = set(re.findall(rf"(?:^ *|`)((?:{roles})_\w+)(?=[`:=])", by_hand, re.MULTILINE))
    assert named - known == set()
