# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import build, source, tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.command import Masker, Runner


@pytest.fixture
def runner():
    return Runner(os.environ, 60, Masker())


@pytest.fixture
def uv():
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        pytest.skip("uv is not installed beside this Python")
    return found


@pytest.fixture
def wheels(tmp_path):
    """Create a package index in a directory: alpha 1.0 and 2.0, each with a console script."""
    index = tmp_path / "wheels"
    index.mkdir()
    for version in ("1.0", "2.0"):
        info = f"alpha-{version}.dist-info"
        with zipfile.ZipFile(index / f"alpha-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("alpha/__init__.py", f"import sys\ndef main(): print('{version}', sys.prefix)\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: alpha\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nalpha=alpha:main\n")
            wheel.writestr(f"{info}/RECORD", "")
    return index


@pytest.fixture
def app(tmp_path):
    """Create a small app with each kind of file."""
    root = tmp_path / "source"
    (root / "data").mkdir(parents=True)
    (root / "app.py").write_text("value = 1\n")
    (root / "broken.py").write_text("print 'Python 2'\n")
    (root / "data" / "admin.pl").write_text("first\n")
    (root / "requirements.txt").write_text("alpha==1.0\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o700)
    (root / "current").symlink_to("app.py")
    return root


@pytest.fixture
def request_for(tmp_path, uv, wheels):
    """Return a function that creates a request; keywords replace its fields."""

    def make(root, **changes):
        request = build.Request(
            base_dir=tmp_path / "base",
            source=source.Source("path", str(root)),
            content=source.Tree(tree.digest(root, tree.DEFAULT_EXCLUDE), root),
            python=sys.executable,
            uv=uv,
            environment={"UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels)},
            shared_dir=tmp_path / "shared",
            lock_timeout=10,
            timeout=120,
        )
        return dataclasses.replace(request, **changes)

    return make


@pytest.fixture
def deploy():
    """Return a function that carries out a request and returns the module's results."""

    def run(request):
        builder = build.ReleaseBuilder(request)
        plan = builder.make_plan()
        return builder.report(builder.apply(plan), done=True)

    return run
