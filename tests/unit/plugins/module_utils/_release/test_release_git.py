# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import dataclasses
import functools
import http.server
import json
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import build, git, source
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.command import Masker, Runner, secrets_in
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def call(folder, *arguments):
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Create a repository with two commits: the first is tagged v1, the second v2 (annotated) and on main."""
    root = tmp_path / "repository"
    root.mkdir()
    call(root, "init", "-q", "-b", "main")
    for number in ("1", "2"):
        (root / "version").write_text(number)
        call(root, "add", "-A")
        call(root, "commit", "-q", "-m", number)
        call(root, "tag", *(["-m", "t", "-a"] if number == "2" else []), f"v{number}")
    return root


def test_resolve(runner, repository):
    first, second = call(repository, "rev-parse", "v1"), call(repository, "rev-parse", "main")
    call(repository, "branch", "old", first)
    url = f"file://{repository}"
    assert git.resolve(runner, url, "v1") == first
    assert git.resolve(runner, url, "old") == first
    # The commit, not the tag object.
    assert git.resolve(runner, url, "v2") == second
    assert git.resolve(runner, url, "main") == second
    assert git.resolve(runner, str(repository), "") == second
    assert git.resolve(runner, "https://unreachable.invalid/x.git", first) == first


def test_a_branch_that_moves_after_the_plan_is_built_as_planned(repository, request_for, deploy):
    requested = request_for(repository, source=source.Source("git", f"file://{repository}", "main"), content=None)
    builder = build.ReleaseBuilder(requested)
    planned = builder.report(builder.make_plan(), done=False)["release"]
    (repository / "version").write_text("3")
    call(repository, "commit", "-q", "-a", "-m", "3")
    commit = planned["source"]["commit"]
    built = deploy(dataclasses.replace(requested, source=dataclasses.replace(requested.source, commit=commit)))[
        "release"
    ]
    assert (built["id"], built["source"]) == (planned["id"], planned["source"])
    assert Path(built["app"], "version").read_text() == "2"
    assert deploy(requested)["release"]["id"] != built["id"]


def test_a_tag_wins_over_a_branch_of_its_name(runner, repository):
    call(repository, "branch", "v1", "main")
    assert git.resolve(runner, str(repository), "v1") == call(repository, "rev-parse", "refs/tags/v1")


@pytest.mark.parametrize("version", ["v3", "ma", "refs", "8243dad"])
def test_resolve_reports_an_unknown_version(runner, repository, version):
    with pytest.raises(ReleaseError, match=f"'{version}' is neither a branch nor a tag.*40 hexadecimal"):
        git.resolve(runner, str(repository), version)


def test_a_missing_repository_is_an_error_with_its_output(runner, tmp_path):
    with pytest.raises(ReleaseError) as error:
        git.resolve(runner, str(tmp_path / "none"), "main")
    assert any("does not appear to be a git repository" in line for line in error.value.output)
    assert "ls-remote" in error.value.command


@pytest.mark.parametrize("value", ["--upload-pack=touch /tmp/x", "-x", "a\nb"])
def test_options_are_refused(value):
    with pytest.raises(ReleaseError):
        git.check(value, "main")
    with pytest.raises(ReleaseError):
        git.check("https://example.com/a.git", value)


def test_a_transport_that_runs_commands_is_refused(runner, tmp_path):
    with pytest.raises(ReleaseError):
        git.resolve(runner, f"ext::sh -c touch% {tmp_path}/owned", "main")
    assert not (tmp_path / "owned").exists()


def export(runner, tmp_path, url, version, name="out"):
    git.Cache(runner, tmp_path / "cache").export(url, git.resolve(runner, url, version), tmp_path / name)
    return tmp_path / name


def test_export_equals_the_commit(runner, repository, tmp_path):
    """Attributes of the repository do not omit or rewrite files, and its hooks do not run."""
    (repository / ".gitattributes").write_text(
        "secret export-ignore\nstamp export-subst\nwin text eol=crlf\nlarge filter=evil\nident ident\n"
    )
    content = {"secret": "s\n", "stamp": "$Format:%H$\n", "win": "a\n", "large": "l\n", "ident": "$Id$\n"}
    for name, text in content.items():
        (repository / name).write_text(text)
    (repository / "run").write_text("#!/bin/sh\n")
    (repository / "run").chmod(0o755)
    (repository / "link").symlink_to("run")
    call(repository, "add", "-A")
    call(repository, "commit", "-q", "-m", "attributes")
    call(repository, "config", "filter.evil.smudge", f"touch {tmp_path}/owned")
    for hook in ("post-checkout", "post-update", "pre-receive"):
        script = repository / ".git" / "hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\ntouch {tmp_path}/owned\n")
        script.chmod(0o755)
    out = export(runner, tmp_path, str(repository), "main")
    assert {name: (out / name).read_bytes().decode() for name in content} == content
    assert (out / "run").stat().st_mode & stat.S_IXUSR
    assert (out / "link").readlink().name == "run"
    assert not (out / ".git").exists()
    assert not (tmp_path / "owned").exists()


def test_an_old_commit_and_a_later_one_from_one_cache(runner, repository, tmp_path):
    assert (export(runner, tmp_path, str(repository), "v1", "one") / "version").read_text() == "1"
    (repository / "version").write_text("3")
    call(repository, "commit", "-q", "-a", "-m", "3")
    assert (export(runner, tmp_path, str(repository), "main", "two") / "version").read_text() == "3"


def test_stale_locks_of_a_killed_fetch_are_removed(runner, repository, tmp_path):
    export(runner, tmp_path, str(repository), "v1", "one")
    commit = call(repository, "rev-parse", "main")
    for name in ("shallow.lock", "config.lock", "packed-refs.lock", f"refs/release/{commit}.lock"):
        (tmp_path / "cache" / name).write_text("")
    assert (export(runner, tmp_path, str(repository), "main", "two") / "version").read_text() == "2"


def test_submodules_are_exported_at_the_pinned_commit(runner, repository, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    call(part, "init", "-q", "-b", "main")
    (part / "file").write_text("pinned")
    call(part, "add", "-A")
    call(part, "commit", "-q", "-m", "1")
    call(repository, "submodule", "add", "-q", "../part", "lib/part")
    call(repository, "commit", "-q", "-m", "submodule")
    (part / "file").write_text("later")
    call(part, "commit", "-q", "-a", "-m", "2")
    out = export(runner, tmp_path, f"file://{repository}", "main")
    assert (out / "lib" / "part" / "file").read_text() == "pinned"


@pytest.mark.parametrize(
    ("parent", "url", "expected"),
    [
        ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
        ("https://h/a/b.git", "../../x/c.git", "https://h/x/c.git"),
        ("https://u:p@h/a/b.git", "../c.git", "https://u:p@h/a/c.git"),
        ("https://u:p@h/a/b.git", "https://h/c.git", "https://u:p@h/c.git"),
        ("https://u:p@h/a/b.git", "https://other/c.git", "https://other/c.git"),
        ("https://u:p@h/a/b.git", "https://h.other/c.git", "https://h.other/c.git"),
        ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
        ("git@h:a/b.git", "git@o:c.git", "git@o:c.git"),
        ("ssh://git@h/a.git", "../c.git", "ssh://git@h/c.git"),
        ("/srv/a.git", "/srv/c.git", "/srv/c.git"),
    ],
)
def test_submodule_url(parent, url, expected):
    assert git.submodule_url(parent, url) == expected


@pytest.mark.parametrize("url", ["/etc", "file:///etc", "--upload-pack=x", "./../../../etc/x y\n"])
def test_a_remote_repository_cannot_read_paths_of_this_host(url):
    with pytest.raises(ReleaseError):
        git.submodule_url("https://h/a.git", url)


class Guarded(http.server.SimpleHTTPRequestHandler):
    """A file server with a password: git's "dumb" protocol, which has no shallow fetch."""

    def do_GET(self):
        if self.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:hunter22").decode():
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_server_with_a_password_and_without_shallow_fetch(runner, repository, tmp_path):
    bare = tmp_path / "www" / "panel.git"
    call(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    call(bare, "update-server-info")
    handler = functools.partial(Guarded, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            address = f"127.0.0.1:{listening.server_port}/panel.git"
            assert (export(runner, tmp_path, f"http://me:hunter22@{address}", "v1") / "version").read_text() == "1"
            # git must not prompt: a build would wait for a password forever.
            with pytest.raises(ReleaseError) as error:
                git.resolve(runner, f"http://me:wrong-one@{address}", "v1")
            assert "wrong-one" not in str(vars(error.value))
        finally:
            listening.shutdown()


def test_credentials_are_not_in_arguments(tmp_path):
    """All users of the host can read arguments."""
    record = tmp_path / "record"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        f"json.dump([sys.argv, dict(os.environ)], open({str(record)!r}, 'w'))\n"
        f"print('{'0' * 40}\\trefs/heads/main')\nprint('using hunter22 as the password')\n"
    )
    fake.chmod(0o755)
    url = "https://me:hunter22@git.example.com/panel.git"
    log = (tmp_path / "log").open("w+")
    path = f"{fake.parent}:{os.environ['PATH']}"
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "/srv"}
    runner = Runner({**os.environ, **given, "PATH": path}, 10, Masker(secrets_in(url)), log)
    assert git.resolve(runner, url, "main") == "0" * 40
    arguments, environment = json.loads(record.read_text())
    assert "hunter22" not in " ".join(arguments)
    assert arguments[-1] == "https://git.example.com/panel.git"
    settings = {
        environment[f"GIT_CONFIG_KEY_{number}"]: environment[f"GIT_CONFIG_VALUE_{number}"]
        for number in range(int(environment["GIT_CONFIG_COUNT"]))
    }
    token = base64.b64encode(b"me:hunter22").decode()
    assert settings["http.https://git.example.com/.extraHeader"] == f"Authorization: Basic {token}"
    assert settings["safe.directory"] == "/srv"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    log.seek(0)
    assert "hunter22" not in log.read()
