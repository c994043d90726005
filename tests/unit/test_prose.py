# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for scripts/prose, with a phrase of its own table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHRASE = "all the" + " same"


def check(file):
    return subprocess.run([sys.executable, ROOT / "scripts/prose", file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.md", f"# Title\n\nIt works {PHRASE}.\n", 3),
        ("a.py", f'"""Do it.\n\nIt works {PHRASE}.\n"""\n', 3),
        ("a.py", f"x = 1  # it works {PHRASE}\n", 1),
        ("a.py", f'raise ValueError(f"it works {PHRASE}: {{x}}")\n', 1),
        ("a.yml", f"- name: Do it {PHRASE}\n", 1),
        ("a.j2", f"{{# It works {PHRASE} #}}\n", 1),
        ("a", f"#!/usr/bin/env python3\n# It works {PHRASE}\n", 2),
        ("a.py", f'"""{"Who"} is there."""\n', 1),
    ],
)
def test_report_file_and_line(tmp_path, name, text, line):
    file = tmp_path / name
    file.write_text(text)
    result = check(file)
    assert result.returncode == 1, result.stderr
    assert f"{name}:{line}: " in result.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", f"Plain.\n\n```text\n{PHRASE}\n```\n\n`{PHRASE}`\n"),
        ("a.py", "def present(): ...\n"),
        ("a.md", "Who is there?\n"),
        ("a.txt", PHRASE),
    ],
)
def test_accept_code_questions_and_other_files(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    assert (check(file).stdout, check(file).returncode) == ("", 0)
