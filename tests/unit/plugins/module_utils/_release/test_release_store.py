# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import store
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError
from hypothesis import given
from hypothesis import strategies as st

ids = st.lists(st.integers(0, 20).map(str), unique=True, max_size=12)


@given(ids, st.integers(-1, 8), st.sets(st.integers(0, 20).map(str)))
def test_prune(newest_first, keep, protected):
    gone = store.releases_to_prune(newest_first, keep, protected)
    stay = [name for name in newest_first if name not in gone]
    assert not set(gone) & protected
    assert set(newest_first[: max(keep, 0)]) <= set(stay)
    assert all(name in protected for name in stay[max(keep, 0) :])


@pytest.fixture
def here(tmp_path):
    (tmp_path / "releases").mkdir()
    (tmp_path / "slots").mkdir()
    (tmp_path / "cache").mkdir()
    return store.Store(tmp_path)


def add(here, name, created):
    here.path(name).mkdir()
    (here.path(name) / store.MANIFEST).write_text(json.dumps({"id": name, "created": created}))


def test_only_complete_releases_count(here):
    add(here, "old", "2026-01-01")
    add(here, "new", "2026-02-01")
    add(here, ".half.partial", "2026-03-01")
    here.path("empty").mkdir()
    here.path("broken").mkdir()
    (here.path("broken") / store.MANIFEST).write_text("{")
    add(here, "renamed", "2026-04-01")
    here.path("renamed").rename(here.path("copy"))
    here.path("list").mkdir()
    (here.path("list") / store.MANIFEST).write_text("[]")
    assert here.complete() == ["new", "old"]
    assert here.leftovers() == [".half.partial"]
    assert store.Store(here.base_dir / "nowhere").complete() == []


def test_slots_link_to_releases(here, tmp_path):
    add(here, "one", "1")
    (tmp_path / "slots" / "blue").symlink_to("../releases/one")
    (tmp_path / "slots" / "green").symlink_to(here.path("gone") / "app")
    (tmp_path / "slots" / "other").symlink_to("/etc")
    (tmp_path / "slots" / "folder").mkdir()
    (tmp_path / "slots" / "folder" / "release").symlink_to("../../releases/two")
    assert here.in_slots() == {"one", "gone", "two"}


def test_an_interrupted_removal_leaves_no_release(here, monkeypatch):
    add(here, "one", "1")
    monkeypatch.setattr(store.shutil, "rmtree", lambda path: None)
    here.remove("one")
    assert here.complete() == []
    assert here.leftovers() == [".one.removed"]
    monkeypatch.undo()
    here.remove(".one.removed")
    assert list(here.releases.iterdir()) == []


def test_an_incomplete_release_is_replaced_unless_a_slot_uses_it(here, tmp_path):
    here.path("one").mkdir()
    add(here, ".one.partial", "1")
    (tmp_path / "slots" / "blue").symlink_to(here.path("one"))
    with pytest.raises(ReleaseError, match="a slot uses it"):
        here.publish("one")
    (tmp_path / "slots" / "blue").unlink()
    here.publish("one")
    assert (here.path("one") / store.MANIFEST).exists()


HOLD = """
import subprocess, sys, time
from pathlib import Path
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.store import Store
with Store(Path(sys.argv[1])).lock(5) as descriptor:
    child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_the_lock_error_reports_its_holder_after_the_builder_was_killed(here):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    builder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(here.base_dir)], stdout=subprocess.PIPE, text=True, env=environment
    )
    child = int(builder.stdout.readline())
    try:
        # The directory of a running build is not a leftover.
        add(here, ".one.partial", "1")
        assert here.leftovers() == []
        with (
            pytest.raises(ReleaseError, match=rf"\.build\.lock for more than 0\.2 s: pid .*{builder.pid}"),
            here.lock(0.2),
        ):
            pass
        builder.kill()
        builder.wait()
        # A command that outlived its builder may still write, so it keeps the lock.
        with pytest.raises(ReleaseError, match=rf"pid {child}\."), here.lock(0.2):
            pass
        os.kill(child, 9)
        began = time.monotonic()
        with here.lock(10):
            assert time.monotonic() - began < 5
        assert here.leftovers() == [".one.partial"]
    finally:
        builder.kill()
        builder.stdout.close()
