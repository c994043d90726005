# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.packages import (
    installed_packages,
    package_lists,
)

STATUS = """\
Package: nginx-light
Status: install ok installed
Architecture: amd64
Description: Status: not a field
 Package: not a field

Package: libc6
Status: hold ok installed
Architecture: amd64

Package: libc6
Status: install ok installed
Architecture: i386

Package: redis-server
Status: deinstall ok config-files

Package: broken
Status: install reinstreq half-installed
"""
DAY = 86400


def write(tree: Path, path: str, content: str = "", age: float = 0) -> Path:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_only_fully_installed_packages_count(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/dpkg/status", STATUS)
    assert installed_packages(Host(tmp_path)) == ["libc6", "nginx-light"]


def test_a_large_status_file_is_read_completely(tmp_path: Path) -> None:
    filler = "Package: filler\nStatus: install ok installed\nDescription: " + "x" * (2 << 20) + "\n\n"
    write(tmp_path, "var/lib/dpkg/status", filler + STATUS)
    assert installed_packages(Host(tmp_path)) == ["filler", "libc6", "nginx-light"]


def test_without_dpkg_nothing_is_installed(tmp_path: Path) -> None:
    assert installed_packages(Host(tmp_path)) == []


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="asks this machine's dpkg")
def test_packages_match_dpkg_query() -> None:
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {line.split()[1] for line in shown.splitlines() if line.startswith("installed ")}
    assert installed_packages(Host()) == sorted(names)


@pytest.mark.parametrize(
    ("lists", "stamp", "fresh", "found"),
    [
        (None, None, False, "empty"),
        (None, 0, False, "empty"),
        (60, None, True, "fresh"),
        (DAY + 60, None, False, "older than a day"),
        (DAY + 60, 60, True, "fresh"),
    ],
)
def test_lists_are_fresh_for_a_day(
    lists: float | None, stamp: float | None, fresh: bool, found: str, tmp_path: Path
) -> None:
    folder = tmp_path / "var/lib/apt/lists"
    write(folder, "lock")
    if lists is not None:
        write(folder, "deb.debian.org_debian_dists_trixie_main_binary-amd64_Packages.lz4")
        os.utime(folder, (time.time() - lists,) * 2)
    if stamp is not None:
        write(tmp_path, "var/lib/apt/periodic/update-success-stamp", age=stamp)
    assert package_lists(Host(tmp_path)) == (fresh, "/var/lib/apt/lists", found)
