# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import packages
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

plain = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda numbers: ".".join(map(str, numbers)))
clauses = st.one_of(
    st.tuples(st.sampled_from(["==", "!=", ">=", "<=", ">", "<"]), plain).map("".join),
    st.tuples(st.sampled_from(["==", "!="]), plain).map(lambda pair: f"{pair[0]}{pair[1]}.*"),
    plain.filter(lambda version: "." in version).map(lambda version: f"~={version}"),
)


@given(plain, st.lists(clauses, max_size=3).map(",".join))
def test_satisfies_agrees_with_packaging(version, specifier):
    assert packages.satisfies(version, specifier) == SpecifierSet(specifier).contains(version)


@pytest.mark.parametrize(("version", "specifier"), [("1.0rc1", "==1.0"), ("1.0", "==1.0+local"), ("1.0", "nonsense")])
def test_unsupported_versions_do_not_satisfy(version, specifier):
    assert not packages.satisfies(version, specifier)


def test_wanted_versions(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.txt").write_text("-r ../requirements.txt\nIncluded >= 1, <2 ; python_version > '3'\n")
    (tmp_path / "requirements.txt").write_text(
        "\ufeff# comment\nFlask_Login[extra]==0.6.2 \\\n  --hash=sha256:00 \\\n  --hash=sha256:11\n-r sub/more.txt\n"
        "--index-url https://h/simple\n-e .\n./local.whl\nplain\nremote @ https://h/x.whl\nnoted==1  # why\n"
    )
    assert packages.wanted_versions(tmp_path / "requirements.txt") == {
        "flask-login": "==0.6.2",
        "included": ">=1,<2",
        "plain": "",
        "noted": "==1",
    }


def test_overridden_lists_versions_that_the_app_refuses():
    wanted = {"gunicorn": "==20.1.0", "gevent": ">=20", "flask": "==2.2.5"}
    installed = {"gunicorn": "23.0.0", "gevent": "24.2", "flask": "2.2.5", "new": "1"}
    found = packages.overridden(wanted, installed, ["Gunicorn==23.0.0", "gevent>=24", "new==1", "flask==2.2.5"])
    assert found == [{"name": "gunicorn", "app_wanted": "==20.1.0", "installed": "23.0.0"}]


@pytest.mark.parametrize("value", ["--index-url=https://evil/", "-r /etc/passwd", "a==1\n--pre", "", "#x"])
def test_an_option_is_not_a_requirement(value):
    with pytest.raises(ReleaseError, match="is not a requirement"):
        packages.check_specifiers([value], "packages")


def test_find_python(runner):
    found = packages.find_python(sys.executable, runner)
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.executable == packages.find_python(found.executable, runner).executable
    with pytest.raises(ReleaseError, match="python9 does not exist"):
        packages.find_python("python9", runner)
    with pytest.raises(ReleaseError, match="is not a Python interpreter"):
        packages.find_python("true", runner)


def test_find_uv_prefers_the_tools_of_the_app(tmp_path):
    with pytest.raises(ReleaseError, match=rf"uv: {tmp_path}/tools/bin/uv does not exist; install"):
        packages.find_uv("", tmp_path, "/nonexistent")
    for folder in ("tools/bin", "path"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "uv").write_text("")
        (tmp_path / folder / "uv").chmod(0o755)
    assert packages.find_uv("", tmp_path, str(tmp_path / "path")) == str(tmp_path / "tools" / "bin" / "uv")
    with pytest.raises(ReleaseError, match="/nowhere/uv"):
        packages.find_uv("/nowhere/uv", tmp_path, str(tmp_path / "path"))
