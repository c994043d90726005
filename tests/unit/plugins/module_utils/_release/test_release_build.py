# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import build, packages, source, tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError

PERSISTENT = ("data", "logs")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def names(path):
    """Return the sorted names in a directory."""
    return sorted(item.name for item in Path(path).iterdir())


def snapshot(*roots):
    """Return all paths below some directories, with the contents of files."""
    found = {}
    for root in roots:
        for path in [root, *sorted(root.rglob("*"))] if root.exists() else []:
            found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def test_first_release(app, request_for, deploy, tmp_path):
    request = request_for(app, persistent_paths=PERSISTENT, label="v1")
    result = deploy(request)
    path = Path(result["release"]["path"])
    assert path == tmp_path / "base" / "releases" / result["release"]["id"]
    assert result["release"]["id"] == f"v1-{result['release']['digest'][7:19]}"
    assert result["changed"]
    assert result["built"]
    assert [step["name"] for step in result["steps"]] == [
        "fetch",
        "virtualenv",
        "runtime",
        "requirements",
        "compile",
        "persist",
        "publish",
    ]
    assert names(path) == ["app", "release.json", "seed", "venv"]
    assert names(path.parent) == [path.name]
    assert (path / "app" / "data" / "admin.pl").read_text() == "first\n"
    # Bytecode was compiled, because the app's user cannot write it. A file for Python 2 does not fail the build.
    assert [file.name.split(".")[0] for file in (path / "app" / "__pycache__").iterdir()] == ["app"]
    assert list((path / "venv").glob("lib/python*/site-packages/alpha/__pycache__/*.pyc"))
    manifest = json.loads((path / "release.json").read_text())
    assert manifest["id"] == path.name
    assert manifest["python"] == ".".join(map(str, sys.version_info[:3]))
    log = tmp_path / "base" / "cache" / f"build-{path.name}.log"
    assert "alpha==1.0" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_virtualenv_works_after_publishing_and_through_a_slot(app, request_for, deploy, tmp_path):
    result = deploy(request_for(app))
    slot = tmp_path / "slot"
    slot.symlink_to(result["release"]["path"])
    for root in (Path(result["release"]["path"]), slot):
        script = subprocess.run([root / "venv" / "bin" / "alpha"], capture_output=True, text=True, check=True)
        assert script.stdout.startswith("1.0 ")
        code = "import sys, alpha; print(sys.prefix)"
        done = subprocess.run(
            [root / "venv" / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(root / "venv")
    assert ".partial" not in (slot / "venv" / "bin" / "alpha").read_text()


def test_an_editable_requirement_works_after_publishing(quick, deploy):
    """Setuptools writes a .pth file with the build path for `-e .`; here a fake uv writes it."""
    result = deploy(quick())
    (pth,) = Path(result["release"]["venv"]).glob("lib/python*/site-packages/editable.pth")
    assert pth.read_text() == f"{result['release']['app']}\n"


def test_equal_inputs_are_the_same_release(app, request_for, deploy, tmp_path):
    request = request_for(app, persistent_paths=PERSISTENT)
    first = deploy(request)
    before = snapshot(tmp_path / "base", tmp_path / "shared")
    began = time.monotonic()
    second = deploy(request)
    assert time.monotonic() - began < 1
    assert not second["changed"]
    assert not second["built"]
    assert second["release"] == first["release"]
    assert second["diff"]["before"] == second["diff"]["after"] == f"{first['release']['id']}\n"
    assert snapshot(tmp_path / "base", tmp_path / "shared") == before


@pytest.mark.parametrize(
    "change",
    [
        {"packages": ("alpha",)},
        {"overrides": ("alpha==2.0",)},
        {"requirements": "requirements.txt"},
        {"persistent_paths": ("data",)},
        {"persistent_paths": PERSISTENT, "shared_dir": Path("/elsewhere")},
        {"runtime": source.Tree("0" * 64)},
        {"content": source.Tree("0" * 64)},
        {"label": "other"},
    ],
)
def test_different_inputs_are_another_release(app, request_for, change):
    request = request_for(app)
    changed = dataclasses.replace(request, **change)
    ids = {build.ReleaseBuilder(item).make_plan().release_id for item in (request, changed)}
    assert len(ids) == 2


@pytest.mark.parametrize("change", [{"keep": 9}, {"timeout": 9}, {"owner": "root"}, {"environment": {"NO": "matter"}}])
def test_build_options_do_not_change_the_id(app, request_for, change):
    request = request_for(app)
    changed = dataclasses.replace(request, **change)
    assert build.ReleaseBuilder(request).make_plan().release_id == build.ReleaseBuilder(changed).make_plan().release_id


def test_check_mode_predicts_the_release_without_changes(app, request_for, deploy, tmp_path):
    request = request_for(app, persistent_paths=PERSISTENT, uv="/nowhere/uv")
    before = snapshot(tmp_path)
    builder = build.ReleaseBuilder(request)
    predicted = builder.report(builder.make_plan(tolerant=True), done=False)
    assert snapshot(tmp_path) == before
    assert predicted["seeded"] == ["data", "logs"]
    done = deploy(request_for(app, persistent_paths=PERSISTENT))
    assert predicted["release"]["id"] == done["release"]["id"]
    assert predicted["diff"] == done["diff"]
    assert predicted["changed"]
    assert predicted["built"]


def test_check_mode_without_git_has_an_unknown_id(request_for, app, tmp_path):
    request = request_for(
        app, source=source.Source("git", str(tmp_path / "none.git")), content=None, environment={"PATH": "/nowhere"}
    )
    builder = build.ReleaseBuilder(request)
    predicted = builder.report(builder.make_plan(tolerant=True), done=False)
    assert predicted["release"]["id"] == "unknown until built"
    assert predicted["changed"]
    assert not (tmp_path / "base").exists()
    with pytest.raises(ReleaseError, match="git is not installed on this host"):
        builder.make_plan()


def test_an_override_replaces_a_pin_and_is_reported(app, request_for, deploy):
    checksum = "0" * 64
    (app / "requirements.txt").write_text(f"alpha==1.0 --hash=sha256:{checksum}\n")
    request = request_for(app, overrides=("alpha==2.0",))
    expected = [{"name": "alpha", "app_wanted": "==1.0", "installed": "2.0"}]
    assert deploy(request)["overridden"] == expected
    assert deploy(request)["overridden"] == expected


def test_hashes_are_verified(app, request_for, deploy, wheels):
    wheel = wheels / "alpha-1.0-py3-none-any.whl"
    good = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (app / "requirements.txt").write_text(f"alpha==1.0 --hash=sha256:{good}\n")
    deploy(request_for(app))
    (app / "requirements.txt").write_text(f"alpha==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ReleaseError) as error:
        deploy(request_for(app))
    assert error.value.step == "requirements"
    assert any("hash" in line.lower() for line in error.value.output)


def test_a_failed_build_changes_nothing_and_reports_why(app, request_for, deploy, tmp_path):
    deploy(request_for(app, persistent_paths=("data",)))
    before = snapshot(tmp_path / "base" / "releases", tmp_path / "shared")
    (app / "requirements.txt").write_text("nowhere-to-be-found==1.0\n")
    request = request_for(
        app,
        persistent_paths=PERSISTENT,
        packages=("other @ https://me:hunter22@files.invalid/other-1.0-py3-none-any.whl",),
    )
    with pytest.raises(ReleaseError) as error:
        deploy(request)
    assert snapshot(tmp_path / "base" / "releases", tmp_path / "shared") == before
    assert error.value.step == "requirements"
    assert "pip install" in error.value.command
    assert error.value.output
    log = Path(error.value.log)
    assert log.stat().st_mode & 0o777 == 0o600
    everything = (
        log.read_text() + str(vars(error.value)) + json.dumps(build.ReleaseBuilder(request).describe(plan(request)))
    )
    assert "hunter22" not in everything
    assert "https://***@files.invalid" in everything


def plan(request):
    return build.ReleaseBuilder(request).make_plan()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"uv": "/nowhere/uv"}, ("virtualenv", "uv: /nowhere/uv does not exist")),
        ({"python": "python9.9"}, ("virtualenv", "python9.9 does not exist")),
        ({"requirements": "none.txt"}, ("requirements", "the source has no file none.txt")),
        ({"persistent_paths": ("settings.json",)}, ("persist", "settings.json is neither")),
        ({"owner": "nosuchuser"}, ("virtualenv", "user 'nosuchuser' does not exist")),
        ({"content": source.Tree("0" * 64, Path("/usr/share/doc/nowhere"))}, ("fetch", "is not a directory")),
        ({"runtime": source.Tree("0" * 64)}, ("runtime", "was not sent")),
    ],
)
def test_the_failed_step_is_reported(app, request_for, deploy, change, expected):
    step, message = expected
    with pytest.raises(ReleaseError, match=message) as error:
        deploy(request_for(app, **change))
    assert error.value.step == step


@pytest.mark.parametrize(
    "change",
    [
        {"label": "../evil"},
        {"label": ".hidden"},
        {"persistent_paths": ("../x",)},
        {"base_dir": Path("relative")},
        {"packages": ("--index-url=x",)},
        {"source": source.Source("archive", "https://example.com/a.zip")},
        {"source": source.Source("archive", "https://example.com/a.zip", checksum="md5:0")},
        {"source": source.Source("archive", "ftp://example.com/a.zip", checksum="sha256:" + "0" * 64)},
        {"source": source.Source("path", "/x", version="v1")},
        {"source": source.Source("path", "/x", subdir="../y")},
        {"source": source.Source("git", "--upload-pack=x")},
        {"source": source.Source("path", " ")},
        {"source": source.Source("git", "https://example.com/a.git", commit="main")},
        {"source": source.Source("path", "/x", commit="0" * 40)},
    ],
)
def test_invalid_requests_are_refused(app, request_for, change):
    with pytest.raises(ReleaseError):
        build.ReleaseBuilder(request_for(app, **change))


def test_a_source_that_changes_during_the_build_is_not_published(app, request_for, deploy, tmp_path):
    request = request_for(app)
    (app / "app.py").write_text("value = 2\n")
    with pytest.raises(ReleaseError, match="changed while it was read"):
        deploy(request)
    assert names(tmp_path / "base" / "releases") == []


def test_a_packed_directory_and_runtime(app, request_for, deploy, tmp_path):
    """The action plugin sends a packed directory."""
    packed = tmp_path / "source.tar.gz"
    tree.pack(app, packed, tree.DEFAULT_EXCLUDE)
    request = request_for(app)
    digest = request.content.digest
    elsewhere = source.Source("path", "/on/the/controller")
    builder = build.ReleaseBuilder(dataclasses.replace(request, source=elsewhere, content=source.Tree(digest)))
    assert builder.missing_content(builder.make_plan()) == ["source"]
    sent = dataclasses.replace(request, source=elsewhere, content=source.Tree(digest, archive=packed))
    assert deploy(sent)["release"]["id"] == builder.make_plan().release_id
    assert builder.missing_content(builder.make_plan()) == []


BACKEND = """
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with pathlib.Path({tally!r}).open("a") as tally:
        tally.write("built\\n")
    name, info = "beside-{version}-py3-none-any.whl", "beside-{version}.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("beside.py", "")
        lines = ["Metadata-Version: 2.1", "Name: beside", "Version: {version}", "Provides-Extra: more",
                 "Requires-Dist: alpha; extra == 'more'", ""]
        wheel.writestr(info + "/METADATA", "\\n".join(lines))
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""


def test_the_runtime_wheel_is_built_once(app, request_for, deploy, tmp_path):
    """The runtime has its own build backend, so that the test needs no package index."""
    tally, sources = tmp_path / "tally", tmp_path / "beside"
    sources.mkdir()
    backend = 'requires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (sources / "pyproject.toml").write_text(f"[build-system]\n{backend}")
    (app / "requirements.txt").unlink()

    def installed(version):
        (sources / "backend.py").write_text(BACKEND.format(tally=str(tally), version=version))
        runtime = source.Tree(tree.digest(sources, tree.DEFAULT_EXCLUDE), sources)
        content = source.Tree(tree.digest(app, tree.DEFAULT_EXCLUDE), app)
        result = deploy(request_for(app, content=content, runtime=runtime, runtime_extras=("more",)))
        return packages.installed_versions(Path(result["release"]["venv"])), tally.read_text().count("built")

    assert installed("1.0") == ({"beside": "1.0", "alpha": "2.0"}, 1)
    (app / "app.py").write_text("value = 2\n")
    assert installed("1.0") == ({"beside": "1.0", "alpha": "2.0"}, 1)
    assert installed("1.1") == ({"beside": "1.1", "alpha": "2.0"}, 2)
    assert len(list((tmp_path / "base" / "cache" / "wheels").rglob("*.whl"))) == 1


def test_an_archive(app, request_for, deploy, tmp_path):
    packed = tmp_path / "panel-2.5.zip"
    with zipfile.ZipFile(packed, "w") as target:
        target.writestr("panel-2.5/src/app.py", "value = 3\n")
        target.writestr("panel-2.5/src/docs/x", "")
        target.writestr("panel-2.5/README", "")
    checksum = f"sha256:{tree.file_digest(packed)}"
    given = source.Source("archive", f"file://{packed}", checksum=checksum, subdir="src", exclude=("docs",))
    result = deploy(request_for(app, source=given, content=None))
    assert result["release"]["id"].startswith("panel-2.5-")
    assert names(result["release"]["app"]) == ["__pycache__", "app.py"]
    packed.write_bytes(packed.read_bytes() + b"tampered")
    wrong = dataclasses.replace(given, exclude=())
    with pytest.raises(
        ReleaseError, match=f"sha256:{tree.file_digest(packed)}, but source.checksum is {checksum}"
    ) as error:
        deploy(request_for(app, source=wrong, content=None))
    assert error.value.step == "fetch"


def test_old_releases_are_pruned_unless_in_use(app, request_for, deploy, tmp_path):
    made = []
    for number in range(5):
        (app / "app.py").write_text(f"value = {number}\n")
        made.append(deploy(request_for(app, keep=9))["release"]["id"])
    slots = tmp_path / "base" / "slots"
    slots.mkdir()
    (slots / "blue").symlink_to(tmp_path / "base" / "releases" / made[0])
    (tmp_path / "base" / "releases" / ".dead.partial").mkdir()
    request = request_for(app, keep=1, in_use=(f"/somewhere/{made[1]}",))
    predicted = build.ReleaseBuilder(request).make_plan()
    result = deploy(request)
    assert result["pruned"] == [*predicted.prune, *predicted.leftovers] == [made[3], made[2], ".dead.partial"]
    assert names(tmp_path / "base" / "releases") == sorted([made[0], made[1], made[4]])
    logs = {path.name for path in (tmp_path / "base" / "cache").glob("*.log")}
    assert logs == {f"build-{made[index]}.log" for index in (0, 1, 4)}
    # A return to an old release builds nothing, and does not prune that release.
    (app / "app.py").write_text("value = 0\n")
    back = deploy(request_for(app, keep=1))
    assert back["release"]["id"] == made[0]
    assert not back["built"]


def test_a_missing_shared_directory_is_seeded_again(app, request_for, deploy, tmp_path):
    request = request_for(app, persistent_paths=PERSISTENT)
    deploy(request)
    (tmp_path / "shared").rename(tmp_path / "lost")
    result = deploy(request)
    assert result["seeded"] == ["data", "logs"]
    assert not result["built"]
    assert (tmp_path / "shared" / "data" / "admin.pl").read_text() == "first\n"


@needs_root
def test_the_owner_can_run_a_release_but_not_change_it(app, request_for, deploy, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    request = request_for(app, python="/usr/bin/python3", owner="nobody", persistent_paths=PERSISTENT)
    previous = os.umask(0o077)
    try:
        release = deploy(request)["release"]
    finally:
        os.umask(previous)
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import app, alpha;"
        "open(sys.argv[1] + '/data/new', 'w').close();"
        "writable = [p for p, d, f in os.walk(sys.argv[2]) for p in [p, *(os.path.join(p, n) for n in d + f)]"
        " if not os.path.islink(p) and os.access(p, os.W_OK)]; print(writable)"
    )
    done = subprocess.run(
        [f"{release['venv']}/bin/python", "-c", script, release["app"], release["path"]],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@needs_root
def test_a_python_that_the_owner_cannot_run_is_refused(app, request_for, deploy, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    request = request_for(app, owner="nobody", base_dir=closed / "base")
    with pytest.raises(ReleaseError, match=r"nobody cannot run .*Use a Python that all users can run") as error:
        deploy(request)
    assert error.value.step == "virtualenv"


def test_concurrent_builds(app, request_for, deploy):
    """The second build waits, then finds its release."""
    request = request_for(app)
    results = []
    threads = [threading.Thread(target=lambda: results.append(deploy(request))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result["built"] for result in results) == [False, True]
    assert len({result["release"]["id"] for result in results}) == 1


def write_fake_uv(path):
    """Write a fast fake uv, which creates a virtualenv with one package."""
    path.write_text(
        """#!/bin/sh
        for last; do :; done
        case "$1" in
        venv)
            mkdir -p "$last/bin" "$last/lib/python3/site-packages"
            printf '#!/bin/sh\\nexit 0\\n' > "$last/bin/python"
            chmod 755 "$last/bin/python" ;;
        pip)
            echo "$PWD" > ../venv/lib/python3/site-packages/editable.pth
            echo done > ../venv/installed ;;
        esac
        """
    )
    path.chmod(0o755)


@pytest.fixture
def quick(app, request_for, tmp_path):
    """Return a function that creates requests with a fake uv and a fake Python, which build in a few milliseconds."""
    fake_uv, fake_python = tmp_path / "fake-uv", tmp_path / "fake-python"
    write_fake_uv(fake_uv)
    answer = {"version": "3.11.2", "implementation": "cpython", "executable": str(fake_python)}
    fake_python.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    fake_python.chmod(0o755)

    def make(**changes):
        return request_for(app, **{"uv": str(fake_uv), "python": str(fake_python), "keep": 1, **changes})

    return make


def apply_and_die(request, nth):
    """Carry out a request in a process that kills itself at its nth change of the file system; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    calls = 0

    def deadly(real):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return call

    for name in ("mkdir", "rename", "symlink", "unlink", "rmdir", "fsync", "chmod", "fchmod"):
        setattr(os, name, deadly(getattr(os, name)))
    try:
        builder = build.ReleaseBuilder(request)
        builder.apply(builder.make_plan())
        os._exit(0)
    finally:
        os._exit(1)


def test_killed_at_any_moment(app, quick, deploy, tmp_path):
    """Kill a build with SIGKILL before each change of the file system, one run for each; no partial release remains."""
    base, shared = tmp_path / "base", tmp_path / "shared"
    live = deploy(quick())["release"]["id"]
    releases = base / "releases"
    (base / "slots").mkdir()
    (base / "slots" / "blue").symlink_to(releases / live)
    untouched = snapshot(releases / live)
    kills, seen = 0, set()
    while True:
        # Each run builds a release, prunes that of the previous run, and seeds the directory that is removed here.
        (app / "app.py").write_text(f"value = {kills} + 100\n")
        if (shared / "logs").is_dir():
            (shared / "logs").rmdir()
        request = quick(persistent_paths=PERSISTENT)
        status = os.waitpid(apply_and_die(request, kills + 1), 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        assert snapshot(releases / live) == untouched
        for name in names(releases) if releases.exists() else []:
            seen.add(name.rsplit(".", 1)[-1] if name.startswith(".") else "whole")
            if not name.startswith(".") and name != live:
                assert is_whole(releases / name), (kills, name)
                assert (shared / "data" / "admin.pl").read_text() == "first\n"
        # The next complete run repairs everything.
        again = deploy(request)["release"]["id"]
        assert names(releases) == sorted({live, again})
        assert names(shared) == ["data", "logs"]
        assert not deploy(request)["changed"]
    # Check that the kills happened during builds and during removals.
    assert {"partial", "removed", "whole"} <= seen
    assert kills > 30


def is_whole(release):
    manifest = json.loads((release / "release.json").read_text())
    return (
        manifest["id"] == release.name
        and (release / "app" / "app.py").is_file()
        and (release / "venv" / "installed").is_file()
        and not (release / ".build").exists()
        and all((release / "app" / path).is_symlink() for path in manifest["persistent_paths"])
    )


def test_a_command_that_outlives_a_killed_build_keeps_the_lock(app, quick, deploy, tmp_path):
    """If the old uv did not hold the lock, it would write into the new build of the same name."""
    go, waiting, slow = tmp_path / "go", tmp_path / "waiting", tmp_path / "slow-uv"
    os.mkfifo(go)
    slow.write_text(f"""#!/bin/sh
        [ "$1" = venv ] || {{ echo > {waiting}; read x < {go}; }}
        exec {tmp_path}/fake-uv "$@"
        """)
    slow.chmod(0o755)
    request = quick(persistent_paths=PERSISTENT)
    builder = apply_and_die(dataclasses.replace(request, uv=str(slow)), 0)
    deadline = time.monotonic() + 30
    while not waiting.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
    with pytest.raises(ReleaseError, match="Another build has held"):
        deploy(dataclasses.replace(request, lock_timeout=0))
    results = []
    thread = threading.Thread(target=lambda: results.append(deploy(request)))
    thread.start()
    go.write_text("\n")
    thread.join(30)
    assert results
    assert is_whole(Path(results[0]["release"]["path"]))
