# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._host import nofollow


@pytest.fixture
def root(tmp_path):
    descriptor = os.open(tmp_path, nofollow.OPEN_FOLDER)
    yield descriptor
    os.close(descriptor)


def test_open_folder_creates_missing_folders(root, tmp_path):
    (tmp_path / "one").mkdir()
    descriptor = nofollow.open_folder(root, "one/two/three", 0o700)
    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "one" / "two" / "three").stat())
    assert (tmp_path / "one" / "two").stat().st_mode & 0o777 == 0o700
    os.close(descriptor)


def test_open_folder_opens_the_root_for_an_empty_path(root, tmp_path):
    descriptor = nofollow.open_folder(root, "")
    assert os.path.samestat(os.fstat(descriptor), tmp_path.stat())
    os.close(descriptor)


@pytest.mark.parametrize("create_mode", [None, 0o700])
def test_open_folder_follows_no_symlink(create_mode, root, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "one" / "link").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="one/link") as refused:
        nofollow.open_folder(root, "one/link/below", create_mode)
    assert refused.value.filename == "one/link"
    assert not any((tmp_path / "other").iterdir())


def test_open_folder_does_not_create_folders_unless_told_to(root, tmp_path):
    with pytest.raises(FileNotFoundError):
        nofollow.open_folder(root, "one/two")
    assert not (tmp_path / "one").exists()
