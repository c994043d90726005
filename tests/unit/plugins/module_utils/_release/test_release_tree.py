# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import archive, tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

# All valid file names, including names that are not UTF-8.
names = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b".."))
    .map(os.fsdecode)
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
files = st.dictionaries(paths, st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=6)


def write(root: Path, content, order=None):
    """Write files; returns False if a name is both a file and a directory."""
    for path in order or content:
        data, executable = content[path]
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        except OSError:
            return False
        place.chmod(0o755 if executable else 0o640)
    return True


@settings(max_examples=60, deadline=None)
@given(files, st.randoms())
def test_digest_depends_only_on_content(content, random):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        shuffled = random.sample(list(content), len(content))
        assume(write(Path(one), content) and write(Path(two), content, shuffled))
        for path in content:
            os.utime(Path(two) / path, (1, 1))
            (Path(two) / path).chmod((Path(one) / path).stat().st_mode | 0o066)
        assert tree.digest(Path(one)) == tree.digest(Path(two))


@settings(max_examples=60, deadline=None)
@given(files, st.sampled_from(["content", "mode", "name", "gone", "link", "directory"]), st.data())
def test_digest_changes_with_content(content, kind, data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        assume(write(root, content))
        before = tree.digest(root)
        path = root / data.draw(st.sampled_from(sorted(content)))
        if kind == "content":
            path.write_bytes(path.read_bytes() + b"x")
        elif kind == "mode":
            path.chmod(path.stat().st_mode ^ 0o100)
        elif kind == "name":
            target = path.with_name(path.name + "x")
            assume(not target.exists())
            path.rename(target)
        elif kind == "gone":
            path.unlink()
        elif kind == "link":
            path.unlink()
            path.symlink_to("elsewhere")
        else:
            assume(not (root / "an empty directory").exists())
            (root / "an empty directory").mkdir()
        assert tree.digest(root) != before


@settings(max_examples=60, deadline=None)
@given(files)
def test_pack_and_extract(content):
    with tempfile.TemporaryDirectory() as folder:
        root, there = Path(folder) / "here", Path(folder) / "there"
        assume(write(root, content))
        if not (root / "link").exists():
            (root / "link").symlink_to("target")
        (root / "nothing in it").mkdir(exist_ok=True)
        tree.pack(root, Path(folder) / "packed")
        tree.pack(root, Path(folder) / "again")
        assert (Path(folder) / "packed").read_bytes() == (Path(folder) / "again").read_bytes()
        archive.extract(Path(folder) / "packed", there)
        assert tree.digest(there) == tree.digest(root)


def test_digest_separates_fields(tmp_path):
    """Content that looks like the name of the next entry is not parsed as that."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "xfb").write_text("")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("fb")
    assert tree.digest(tmp_path / "a") != tree.digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("a/b/__pycache__", ["__pycache__"], True),
        ("a/b/x.pyc", ["*.pyc"], True),
        ("docs", ["/docs"], True),
        ("a/docs", ["/docs"], False),
        ("a/docs", ["a/docs/"], True),
        ("a/docs", ["b/docs"], False),
        ("docs.py", ["docs"], False),
    ],
)
def test_exclude(path, patterns, expected):
    assert tree.is_excluded(path, patterns) is expected


def test_excluded_files_do_not_change_the_digest(app):
    before = tree.digest(app, tree.DEFAULT_EXCLUDE)
    (app / "__pycache__").mkdir()
    (app / "__pycache__" / "app.pyc").write_text("x")
    (app / ".git").mkdir()
    (app / ".git" / "HEAD").write_text("x")
    (app / "stray.pyc").write_text("x")
    assert tree.digest(app, tree.DEFAULT_EXCLUDE) == before
    assert tree.digest(app) != before


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "data/../../outside", "here/../outside"])
def test_a_link_out_of_the_tree_is_refused(app, target):
    # In its text, `here/..` is the tree; in the file system, it is the parent.
    (app / "here").symlink_to(".")
    (app / "bad").symlink_to(target)
    with pytest.raises(ReleaseError, match=r"bad is a symbolic link .*exclude"):
        tree.digest(app)
    assert tree.digest(app, ["bad"])


def test_a_link_with_parent_parts_inside_the_tree_is_accepted(app):
    (app / "data" / "up").symlink_to("../data/../app.py")
    assert tree.digest(app)


def test_a_socket_is_reported(app):
    with socket.socket(socket.AF_UNIX) as server:
        # Use a relative path: a socket's path can have at most 107 bytes.
        previous = Path.cwd()
        os.chdir(app)
        try:
            server.bind("dev.sock")
        finally:
            os.chdir(previous)
        with pytest.raises(ReleaseError, match=r"dev\.sock cannot be released: it is a socket.*exclude"):
            tree.digest(app)


@pytest.mark.parametrize("value", ["", "/", "/etc", "..", "a/../../b", "a/..", ".", "a\0b"])
def test_paths_outside_of_the_source_are_refused(value):
    with pytest.raises(ReleaseError, match="option: "):
        tree.relative_path(value, "option")


def test_a_transferred_file_has_the_current_time(app, tmp_path):
    os.utime(app / "app.py", (1, 1))
    tree.transfer(app, tmp_path / "copy")
    assert (tmp_path / "copy" / "app.py").stat().st_mtime > 1_000_000_000
    assert (tmp_path / "copy" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert tree.digest(tmp_path / "copy") == tree.digest(app)
