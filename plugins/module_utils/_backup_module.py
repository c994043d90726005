# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Code that the backup modules share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._backup.errors import BackupError
from ._backup.service.backups import BackupService
from ._backup.service.settings import load

CONFIG = {"config": {"type": "path", "default": "/etc/aapanel/backup.json"}}
WAIT = {"wait": {"type": "float", "default": 60.0}}


@contextlib.contextmanager
def backup_service(module: Any) -> Iterator[BackupService]:  # noqa: ANN401 (an AnsibleModule, which has no types)
    """Yield the backup service of this host; an error of it fails the module."""
    params: dict[str, Any] = module.params
    try:
        yield BackupService(load(Path(params["config"])), wait=params.get("wait", 0.0))
    except BackupError as error:
        module.fail_json(msg=str(error), status=error.status)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the host'}: {error.strerror or error}", status=1)
