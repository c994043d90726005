# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages are correct: generated text is up to date, and links, make targets and variables exist."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("roles/*/README.md")])


def load_generator():
    spec = spec_from_loader("docs", SourceFileLoader("docs", str(ROOT / "scripts" / "docs")))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


def read(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", GENERATOR.pages(), ids=by_name)
def test_generated_pages_are_up_to_date(page):
    assert page.read_text(encoding="utf-8") == GENERATOR.pages()[page], "run: make docs"


def test_every_role_has_a_readme():
    assert {path.parent.name for path in GENERATOR.pages() if path.name == "README.md"} == set(GENERATOR.ROLES)
    assert sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/main.yml")) == GENERATOR.ROLES


def test_every_role_and_every_panel_variable_is_in_a_table():
    page = GENERATOR.PAGE.read_text(encoding="utf-8")
    names = {name for path in ROOT.glob("roles/*/defaults/main.yml") for name in read(path)}
    assert {name for name in names if f"| `{name}` |" not in page} == set()


def test_a_stale_table_is_replaced_and_other_text_is_kept():
    page = "before\n<!-- begin panel -->\nold | stuff\n<!-- end panel -->\nafter\n"
    new = GENERATOR.render(page)
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old | stuff" not in new
    assert "| `panel_domain` | `localhost` |" in new


def test_a_mark_that_names_no_table_is_an_error():
    with pytest.raises(KeyError, match="pannel"):
        GENERATOR.render("<!-- begin pannel --><!-- end pannel -->")


def test_a_bar_in_a_cell_is_escaped():
    assert GENERATOR.table(("a",), [("`x | y`",)]).splitlines()[-1] == r"| `x \| y` |"


def test_a_default_that_the_argument_spec_omits_comes_from_the_defaults():
    assert "| `nginx_http_port` | int | `{{ panel_http_port }}` |" in GENERATOR.readme("nginx")


def test_descriptions_become_markdown_with_links():
    assert GENERATOR.prose("Use V(auto); see docs/deploy.md.", "../") == "Use `auto`; see [deploy.md](../deploy.md)."


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_linked_files_exist(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_make_targets_exist(page):
    named = set(re.findall(r"(?:`|\$ |[A-Z]+=\S+ )make ([a-z-]+)", page.read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_named_variables_exist(page):
    known = {name for path in ROOT.glob("roles/*/defaults/main.yml") for name in read(path)}
    known |= {row.name for row in GENERATOR.FEATURES}
    known |= {
        tag for path in ROOT.glob("roles/*/tasks/main.yml") for task in read(path) for tag in task.get("tags", [])
    }
    roles = "|".join(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    by_hand = re.sub(r"<!-- begin .*?<!-- end", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    # At the beginning of a code span or of a line of YAML.
    named = set(re.findall(rf"(?:^ *|`)((?:{roles})_\w+)(?=[`:=])", by_hand, re.MULTILINE))
    assert named - known == set()
