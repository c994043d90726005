# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import keyring
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store


@pytest.fixture
def keys():
    return keyring.generate("2026-11-22")


@pytest.fixture
def memory():
    """A temporary folder, in memory if possible, for tests that create thousands of files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def store(tmp_path, keys):
    return Store(tmp_path / "backups", tmp_path / "state", "host-1", keys)
