# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calculates the number of workers for this machine or container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

# Two slots run during a deploy, and the database needs memory too.
_MEMORY_SHARE = 0.5
_MIB = 1024 * 1024
_ROOT = Path("/")


def worker_count(cpus: int, memory: int | None, worker_memory_mb: int) -> int:
    """Return ``2 x CPUs + 1`` (gunicorn's advice), limited to half of the memory, and at least 1.

    :param memory: in bytes; None if it is unknown.
    :param worker_memory_mb: expected memory of one worker, in MiB.
    """
    wanted = 2 * cpus + 1
    if memory is None:
        return wanted
    return max(1, min(wanted, int(memory * _MEMORY_SHARE) // (worker_memory_mb * _MIB)))


def cpu_count(root: Path = _ROOT) -> int:
    """Return the number of CPUs that this process may use: its affinity, or its control group's quota rounded up."""
    usable = len(os.sched_getaffinity(0))
    for folder in _groups(root, "cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        # "max" in version 2 and -1 in version 1 mean no limit.
        if len(quota) == 2 and quota[0].isdecimal() and int(quota[1]) > 0:  # noqa: PLR2004 - quota and period
            usable = min(usable, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, usable)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return the memory that this process may use, in bytes: the machine's, or the limit of its control group."""
    limits = []
    for line in _lines(root / "proc/meminfo"):
        words = line.split()
        if words[:1] == ["MemTotal:"]:
            limits.append(int(words[1]) * 1024)
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word.isdecimal()]
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control group of this process and its parents, because each may set a limit (see cgroups(7))."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if number == "0" else controller)
        group = mount / path.strip("/")
        # In a container the path may be the host's and not exist here; then the limits of its parents apply.
        yield group
        while group != mount and mount in group.parents:
            group = group.parent
            yield group


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
