# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment files, parsed as by systemd."""

from __future__ import annotations

import pytest
from aapanel_runtime.settings.envfile import EnvironmentFileError, parse

ENVIRONMENT_FILE = r"""
# comment
; comment
PLAIN=a b # no comment   
SPACED =  x
EMPTY=
DOUBLE="  keeps \"quotes\", \\ and \n$HOME "
SINGLE='raw \ "x" '
GLUED="a"'b'c
LATE=don't
ESCAPED=a\ b\\c\ 
CONTINUED=one\
two
PASSWORD=p@ss$word#1
"""  # noqa: W291 - trailing white space is tested


def test_an_environment_file_is_parsed_as_by_systemd():
    # The output of `systemd-run --property=EnvironmentFile=… env` for this file, with systemd 252 and 257.
    assert parse(ENVIRONMENT_FILE) == {
        "PLAIN": "a b # no comment",
        "SPACED": "x",
        "EMPTY": "",
        "DOUBLE": '  keeps "quotes", \\ and \\n$HOME ',
        "SINGLE": 'raw \\ "x" ',
        "GLUED": "abc",
        "LATE": "don't",
        "ESCAPED": "a b\\c ",
        "CONTINUED": "onetwo",
        "PASSWORD": "p@ss$word#1",
    }


@pytest.mark.parametrize(
    "text", ["A=1\nnot a setting: hunter2", "A=1\nexport B=hunter2", "A=1\nB='hunter2", "A=1\n=hunter2"]
)
def test_a_line_that_systemd_would_ignore_is_refused_without_quoting_it(text):
    with pytest.raises(EnvironmentFileError, match="2") as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)
