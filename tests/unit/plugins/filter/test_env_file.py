# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.aapanel.pipeline.plugins.filter.env_file import env_file
from hypothesis import given, settings
from hypothesis import strategies as st

# Values of an environment variable without line breaks and NUL.
values = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=60)


@settings(max_examples=40, deadline=None)  # each example starts a shell
@given(values)
def test_a_shell_reads_back_the_value(value: str) -> None:
    script = env_file({"VALUE": value}) + '\nprintf %s "$VALUE"'
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, env={})
    assert result.stdout.decode() == value


def test_kinds_of_values() -> None:
    assert env_file({"B": True, "A": 5, "C": None}) == 'A="5"\nB="true"'


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A\n"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="not a valid environment variable name"):
        env_file({name: "x"})


@pytest.mark.parametrize("value", ["a\nB=1", "a\r", "a\0"])
def test_a_multiline_value_is_refused_without_printing_it(value: str) -> None:
    with pytest.raises(AnsibleFilterError, match="SECRET") as refusal:
        env_file({"SECRET": value})
    assert value not in str(refusal.value)
