# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Determine the processors and the memory that a service can use."""

from __future__ import annotations

import posixpath

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host

_MIB = 1 << 20


def usable_cpus(host: Host) -> int:
    """Return the number of processors that a service on the host can use; at least 1.

    The minimum of: processors that are online, processors that this process may run on, processors that the container
    shows, and the CPU quota of the control groups above pid 1, rounded down.
    """
    counts = [
        _count_list(host.read("/sys/devices/system/cpu/online")),
        _count_list(host.status("Cpus_allowed_list")),
        sum(line.startswith("processor") for line in (host.read("/proc/cpuinfo") or "").splitlines()),
    ]
    counts += [max(1, int(quota)) for quota in _cpu_quotas(host)]
    return min((count for count in counts if count > 0), default=1)


def usable_memory_mb(host: Host) -> int | None:
    """Return the memory in MiB that a service on the host can use, without swap; None if unknown.

    The minimum of ``MemTotal`` and the limits of the control groups above pid 1. These apply to every service, unlike
    the limits of the current session.
    """
    limits = list(_memory_limits(host))
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _colon, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if name == "MemTotal" and number.isdecimal():
            limits.append(int(number) * 1024)
    return min(limits) // _MIB if limits else None


def _count_list(text: str | None) -> int:
    """Return the length of a kernel list such as ``0-3,8`` (cpuset(7), "List format"); 0 if it is invalid."""
    total = 0
    for part in (text or "").split(","):
        first, _dash, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            total += int(last or first) - int(first) + 1
    return total


def _groups(host: Host) -> dict[str, list[str]]:
    """Return the control group of pid 1 and its parents, innermost first, by controller (cgroups(7)).

    The controller of cgroup v2 is "".
    """
    text = host.read("/proc/1/cgroup") or host.read("/proc/self/cgroup") or "0::/"
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        controllers, _colon, group = line.partition(":")[2].partition(":")
        # A group outside of this cgroup namespace is shown as /../..; only the mounted part can be read.
        group = posixpath.normpath("/" + group.lstrip("/"))
        chain = [group]
        while group != "/":
            group = posixpath.dirname(group)
            chain.append(group)
        for controller in controllers.split(","):
            chains[controller] = chain
    return chains


def _group_files(host: Host, controller: str, name: str) -> list[str]:
    chains = _groups(host)
    mount = f"/sys/fs/cgroup/{controller}".rstrip("/")
    texts = (host.read(posixpath.join(mount + group, name)) for group in chains.get(controller, ["/"]))
    return [text for text in texts if text]


def _memory_limits(host: Host) -> list[int]:
    texts = _group_files(host, "", "memory.max") + _group_files(host, "memory", "memory.limit_in_bytes")
    return [int(text) for text in texts if text.isdecimal()]


def _cpu_quotas(host: Host) -> list[float]:
    quotas = []
    for text in _group_files(host, "", "cpu.max"):
        quota, _space, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(quota) / int(period))
    periods = _group_files(host, "cpu", "cpu.cfs_period_us")
    for quota, period in zip(_group_files(host, "cpu", "cpu.cfs_quota_us"), periods, strict=False):
        # -1 is "no quota".
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(quota) / int(period))
    return quotas
