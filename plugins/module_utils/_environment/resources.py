# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import posixpath

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host

_MIB = 1 << 20


def usable_cpus(host: Host) -> int:
    """How many processors a service on *host* may really use; at least 1.

    The least of: processors that are online, those this process may run on, those the container shows, and the
    processor quota of the control groups above pid 1, rounded down (1.5 is 1: what is not there cannot be used).
    """
    counts = [
        _count_list(host.read("/sys/devices/system/cpu/online")),
        _count_list(host.status("Cpus_allowed_list")),
        sum(line.startswith("processor") for line in (host.read("/proc/cpuinfo") or "").splitlines()),
    ]
    counts += [max(1, int(quota)) for quota in _cpu_quotas(host)]
    return min((count for count in counts if count > 0), default=1)


def usable_memory_mb(host: Host) -> int | None:
    """Memory in MiB that a service on *host* may use, without swap; None when the machine does not tell.

    The lesser of ``MemTotal`` and the limits of the control groups above pid 1 (every service of the machine lives
    under those; the limits of the asking session are its own affair).
    """
    limits = list(_memory_limits(host))
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if name == "MemTotal" and number.isdecimal():
            limits.append(int(number) * 1024)
    return min(limits) // _MIB if limits else None


def _count_list(text: str | None) -> int:
    """Length of a kernel list such as ``0-3,8`` (cpuset(7), "List format"); 0 when it cannot be read."""
    total = 0
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            total += int(last or first) - int(first) + 1
    return total


def _groups(host: Host) -> dict[str, list[str]]:
    """Controller ("" for cgroup v2) → control group of pid 1 and all above it, innermost first (cgroups(7))."""
    text = host.read("/proc/1/cgroup") or host.read("/proc/self/cgroup") or "0::/"
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        # A group outside our cgroup namespace shows as /../..; only what is mounted here can be read.
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
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(quota) / int(period))
    periods = _group_files(host, "cpu", "cpu.cfs_period_us")
    for quota, period in zip(_group_files(host, "cpu", "cpu.cfs_quota_us"), periods, strict=False):
        # -1 is "no quota".
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(quota) / int(period))
    return quotas
