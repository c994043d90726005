# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import persist
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError

ME = persist.Owner()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def names(path):
    """Return the sorted names in a directory."""
    return sorted(item.name for item in Path(path).iterdir())


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


def settle(app, seed, shared, paths, owner=ME):
    plain = persist.check_paths(paths)
    persist.link(app, seed, shared, plain)
    persist.seed_shared(shared, seed, plain, owner, 0o750)


def test_first_content_is_seeded_and_then_kept(app, tmp_path, shared):
    settle(app, tmp_path / "seed", shared, ["data", "logs", "conf/site.json/", "run.sh"])
    assert (app / "data").readlink() == shared / "data"
    assert (app / "data" / "admin.pl").read_text() == "first\n"
    assert (shared / "logs").is_dir()
    assert (shared / "conf" / "site.json").is_dir()
    assert (shared / "data").stat().st_mode & 0o777 == 0o750
    assert (shared / "run.sh").stat().st_mode & 0o777 == 0o640
    (shared / "data" / "admin.pl").write_text("the user's")
    (shared / "data").chmod(0o700)
    second = tmp_path / "second"
    (second / "data").mkdir(parents=True)
    (second / "data" / "admin.pl").write_text("the next release's")
    settle(second, tmp_path / "seed2", shared, ["data"])
    assert (second / "data" / "admin.pl").read_text() == "the user's"
    assert (shared / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("path", ["/etc", "../data", "a/../../b", "", ".", "data/.."])
def test_paths_outside_of_the_source_are_refused(path):
    with pytest.raises(ReleaseError, match=r"persistent_paths: .* must be a relative path"):
        persist.check_paths([path])


def test_a_path_inside_another_is_refused():
    with pytest.raises(ReleaseError, match="data/a/session is already covered by data"):
        persist.check_paths(["data/a/session", "data"])
    assert persist.check_paths(["data", "./database/", "data2"]) == ["data", "database/", "data2"]


def test_a_missing_path_with_a_suffix_is_not_guessed(app, tmp_path, shared):
    with pytest.raises(ReleaseError, match=r"settings\.json is neither .* Write settings\.json/"):
        persist.link(app, tmp_path / "seed", shared, ["settings.json"])


def test_links_in_the_source_are_not_followed(app, tmp_path, shared):
    (app / "way").symlink_to("data")
    for path in ("current", "way/admin.pl"):
        with pytest.raises(ReleaseError, match=r"symbolic link|is not a directory"):
            persist.link(app, tmp_path / f"seed{len(path)}", shared, [path])


def test_links_inside_a_seed_stay_links(app, tmp_path, shared):
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (app / "data" / "link").symlink_to(secret)
    settle(app, tmp_path / "seed", shared, ["data"])
    assert (shared / "data" / "link").is_symlink()


def test_a_link_in_the_shared_directory_is_not_followed(app, tmp_path, shared):
    """The app can write there; root must not follow its links."""
    victim = tmp_path / "victim"
    victim.mkdir()
    shared.mkdir()
    (shared / "conf").symlink_to(victim)
    (app / "conf").mkdir()
    (app / "conf" / "site").write_text("x")
    with pytest.raises(ReleaseError, match="conf cannot be opened as a directory"):
        settle(app, tmp_path / "seed", shared, ["conf/site"])
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_remains_of_a_killed_seeding_are_replaced(app, tmp_path, shared, kind):
    victim = tmp_path / "victim"
    victim.mkdir()
    shared.mkdir()
    rest = shared / ".data.seeding"
    if kind == "file":
        rest.write_text("half")
    elif kind == "directory":
        (rest / "half").mkdir(parents=True)
    else:
        rest.symlink_to(victim)
    settle(app, tmp_path / "seed", shared, ["data"])
    assert names(shared) == ["data"]
    assert names(shared / "data") == ["admin.pl"]
    assert list(victim.iterdir()) == []


@needs_root
def test_the_owner_gets_the_seed_but_not_its_parents(app, tmp_path, shared):
    (app / "data" / "deep").mkdir()
    (app / "data" / "deep" / "link").symlink_to("../admin.pl")
    settle(app, tmp_path / "seed", shared, ["data", "conf/x"], persist.Owner(65534, 65534))
    for path in ("data", "data/deep", "data/deep/link", "data/admin.pl", "conf/x"):
        assert (shared / path).lstat().st_uid == 65534, path
    assert shared.stat().st_uid == (shared / "conf").stat().st_uid == 0


def test_unknown_owners_are_reported():
    with pytest.raises(ReleaseError, match="owner: user 'nosuchuser' does not exist"):
        persist.find_owner("nosuchuser", "")
    with pytest.raises(ReleaseError, match="group: group 'nosuchgroup' does not exist"):
        persist.find_owner("", "nosuchgroup")
    assert persist.find_owner("54321", "54322") == persist.Owner(54321, 54322)
