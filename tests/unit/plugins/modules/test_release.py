# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError
from ansible_collections.aapanel.pipeline.plugins.modules import release

UV = Path(sys.executable).parent / "uv"
TOKEN = "hunter22hunter22"


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "app"
    root.mkdir()
    (root / "app.py").write_text("value = 1\n")
    return root


@pytest.fixture
def call(tmp_path, source):
    """Return a function that runs the module as a process with JSON input and output, as on a host."""
    if not UV.exists():
        pytest.skip("uv is not installed beside this Python")

    def run(check=False, **changes):
        arguments = {
            "base_dir": str(tmp_path / "base"),
            "source": {"location": str(source)},
            "python": sys.executable,
            "uv": str(UV),
            "environment": {"UV_OFFLINE": "1", "MY_TOKEN": TOKEN},
            "_ansible_check_mode": check,
            "_ansible_inject_invocation": True,
            **changes,
        }
        done = subprocess.run(
            [sys.executable, release.__file__, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        assert TOKEN not in done.stdout
        return json.loads(done.stdout)

    return run


def test_check_mode_build_and_unchanged(call, tmp_path):
    predicted = call(check=True)
    assert predicted["changed"]
    assert not (tmp_path / "base").exists()
    built = call()
    assert built["built"]
    # A "1" in the environment is not secret: it must not be masked in IDs and times.
    assert built["release"]["id"] == predicted["release"]["id"]
    assert "*" not in json.dumps(built["release"]) + json.dumps(built["steps"])
    assert built["diff"] == predicted["diff"]
    again = call()
    assert not again["changed"]
    assert again["release"] == built["release"]


def test_secrets_are_masked(call, source):
    (source / "requirements.txt").write_text(f"x @ https://me:{TOKEN}@files.invalid/x-1.0-py3-none-any.whl\n")
    failed = call(packages=[f"y @ https://{TOKEN}@files.invalid/y-1.0-py3-none-any.whl"], timeout=60)
    assert failed["failed"]
    assert failed["step"] == "requirements"
    assert failed["output"]
    assert failed["log"] in failed["msg"]
    assert TOKEN not in Path(failed["log"]).read_text()


def test_a_failure_before_the_build_reports_its_step(call):
    failed = call(python="python9.9")
    assert failed["failed"]
    assert failed["msg"].startswith("The release failed in step virtualenv: python: python9.9 does not exist")
    assert failed["log"] == ""


def test_an_invalid_mode_is_reported(call):
    assert "shared_mode: 'rwx' must be octal" in call(shared_mode="rwx")["msg"]


def test_missing_content_is_requested(call, tmp_path):
    trees = {"source": {"digest": "0" * 64}, "runtime": {"digest": "1" * 64}}
    asked = call(controller_trees=trees)
    assert asked["needs"] == ["source", "runtime"]
    assert not asked["changed"]
    assert not (tmp_path / "base").exists()
    assert call(check=True, controller_trees=trees)["built"]


def test_the_type_follows_from_the_location():
    params = {name: spec.get("default") for name, spec in release.ARGUMENT_SPEC.items()}
    empty = {"type": "auto", "version": None, "checksum": None, "commit": None, "subdir": None, "exclude": []}
    expected = {
        "https://h/a/panel.git": "git",
        "https://h/a/panel": "git",
        "git@h:a/panel": "git",
        "file:///srv/panel.git": "git",
        "/srv/panel.git/": "git",
        "https://h/panel-1.tar.gz": "archive",
        "https://h/panel.zip?download=1": "archive",
        "/srv/panel.TGZ": "archive",
        "./panel": "path",
        "/srv/panel": "path",
        "/srv/mail@example.com/panel": "path",
    }
    for location, kind in expected.items():
        given = {**params, "base_dir": "/x", "source": {**empty, "location": location}}
        assert release.to_request(given).source.type == kind, location


def test_an_invalid_runtime_is_reported():
    params = {name: spec.get("default") for name, spec in release.ARGUMENT_SPEC.items()}
    given = {
        "type": "path",
        "location": "/x",
        "version": None,
        "checksum": None,
        "commit": None,
        "subdir": None,
        "exclude": [],
    }
    with pytest.raises(ReleaseError, match="/nowhere is not a directory"):
        release.to_request({**params, "base_dir": "/x", "source": given, "runtime": "/nowhere"})


def test_the_documentation_matches_the_argument_spec():
    def compare(options, spec):
        public = {name for name in spec if not name.startswith("_")}
        assert set(options) == public
        for name in public:
            for key in ("type", "required", "default", "choices", "elements"):
                assert options[name].get(key) == spec[name].get(key), (name, key)
            if "options" in spec[name]:
                compare(options[name]["suboptions"], spec[name]["options"])

    compare(yaml.safe_load(release.DOCUMENTATION)["options"], release.ARGUMENT_SPEC)
    for text in (release.EXAMPLES, release.RETURN):
        assert yaml.safe_load(text)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_repository(call, source):
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", *arguments], cwd=source, check=True)
    subprocess.run(["git", "tag", "v1.5"], cwd=source, check=True)
    built = call(source={"type": "git", "location": str(source), "version": "v1.5"})
    assert built["release"]["id"].startswith("v1.5-")
    assert len(built["release"]["source"]["commit"]) == 40
    assert (Path(built["release"]["app"]) / "app.py").read_text() == "value = 1\n"
    assert not call(source={"type": "git", "location": str(source), "version": "v1.5"})["changed"]
