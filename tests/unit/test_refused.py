# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for refused.py: it fails if an attempt is allowed, or refused for another reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "molecule/shared/files/refused.py"
CLIENT = """#!/bin/sh
case "$PGPASSWORD$MYSQL_PWD $*" in
secret*) exit 0;;
*) echo 'ERROR: access denied' >&2; exit 2;;
esac
"""


@pytest.fixture
def attempt(tmp_path):
    for name in ("psql", "mariadb"):
        (tmp_path / name).write_text(CLIENT)
        (tmp_path / name).chmod(0o755)

    def run(engine, *attempts, says="denied"):
        given = {"engine": engine, "user": "u", "password": "secret", "database": "d", "says": says}
        return subprocess.run(
            [sys.executable, SCRIPT],
            input=json.dumps({**given, "attempts": attempts}),
            env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_refused_attempts_pass(attempt, engine):
    done = attempt(engine, {"password": "wrong"}, {"password": "wrong", "says": "access"})
    assert (done.returncode, done.stdout) == (0, "2 of 2 attempts were refused as expected\n")


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_an_allowed_attempt_fails_and_is_shown_without_its_password(attempt, engine):
    done = attempt(engine, {"sql": "DROP"}, {"password": "wrong"})
    assert done.returncode == 1
    assert "{'sql': 'DROP'}: status 0" in done.stdout
    assert "secret" not in done.stdout


def test_a_refusal_for_another_reason_fails(attempt):
    assert attempt("mysql", {"password": "wrong"}, says="no such host").returncode == 1


def test_an_empty_list_of_attempts_fails(attempt):
    assert attempt("mysql").returncode == 1
