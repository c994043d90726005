# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The number of workers, for recorded control groups of hosts and containers."""

from __future__ import annotations

import os

import pytest
from aapanel_runtime.serving.capacity import cpu_count, memory_limit, worker_count

GIB = 1024**3


@pytest.mark.parametrize(
    ("cpus", "memory", "worker_memory", "workers"),
    [
        (1, 1 * GIB, 128, 3),
        (2, 4 * GIB, 128, 5),
        (8, 2 * GIB, 128, 8),
        (4, GIB // 2, 128, 2),
        (2, GIB // 8, 128, 1),
        (2, None, 128, 5),
        (2, 4 * GIB, 1024, 2),
    ],
)
def test_workers_depend_on_cpus_and_fit_into_half_of_the_memory(cpus, memory, worker_memory, workers):
    assert worker_count(cpus, memory, worker_memory) == workers


def tree(tmp_path, **files: str):
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


MEMINFO = "MemTotal:        8000000 kB\nMemFree: 1 kB\n"


def test_a_machine_without_limits(tmp_path):
    root = tree(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/init.scope\n")
    assert memory_limit(root) == 8000000 * 1024
    assert cpu_count(root) == len(os.sched_getaffinity(0))


def test_the_limit_of_a_parent_slice_applies(tmp_path):
    group = "sys__fs__cgroup__system.slice__aapanel@blue.service"
    files = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "0::/system.slice/aapanel@blue.service\n",
        f"{group}__memory.max": "max\n",
        f"{group}__cpu.max": "max 100000\n",
        "sys__fs__cgroup__system.slice__memory.max": "1073741824\n",
        "sys__fs__cgroup__system.slice__cpu.max": "50000 100000\n",
    }
    root = tree(tmp_path, **files)
    assert memory_limit(root) == GIB
    assert cpu_count(root) == 1


def test_the_limit_of_a_container_is_found_despite_the_path_of_the_host(tmp_path):
    files = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "0::/docker/abc\n",
        "sys__fs__cgroup__memory.max": "536870912\n",
    }
    assert memory_limit(tree(tmp_path, **files)) == GIB // 2


def test_control_groups_of_version_1(tmp_path):
    files = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n0::/x\n",
        "sys__fs__cgroup__memory__box__memory.limit_in_bytes": "268435456\n",
        "sys__fs__cgroup__cpu__box__cpu.cfs_quota_us": "100000\n",
        "sys__fs__cgroup__cpu__box__cpu.cfs_period_us": "100000\n",
    }
    root = tree(tmp_path, **files)
    assert memory_limit(root) == GIB // 4
    assert cpu_count(root) == 1


def test_a_system_without_proc(tmp_path):
    assert memory_limit(tmp_path) is None
    assert cpu_count(tmp_path) >= 1
