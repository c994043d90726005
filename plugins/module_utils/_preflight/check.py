# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.resources import usable_memory_mb

_LISTEN = "0A"  # TCP_LISTEN of the kernel's tcp_states.h, as /proc/net/tcp prints it
_COMM_LENGTH = 15  # proc_pid_comm(5): longer names are cut
_MAX_PORT = 65535
_MIB = 1 << 20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PreflightError(Exception):
    """A demand that makes no sense; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Supported:
    """A system that the collection runs on; no ``versions`` means all of them."""

    id: str
    versions: tuple[str, ...] = ()
    tested: bool = True


@dataclass(frozen=True)
class PortDemand:
    """A TCP port that has to be free, or held by one of the processes in ``allowed``: names as in ``ps -o comm``, or
    words of their command lines, because every Python program is called "python".

    ``address`` is an IP address, empty for all of them; ``variable`` is what a user sets to get another port.
    """

    port: int
    used_for: str
    address: str = ""
    allowed: tuple[str, ...] = ()
    variable: str = ""


@dataclass(frozen=True)
class DiskDemand:
    """``free_mb`` MiB that have to be free where ``path`` is or will be; ``variable`` is what sets the path."""

    path: str
    free_mb: int
    used_for: str
    variable: str = ""


@dataclass(frozen=True)
class Demands:
    """All that a host has to fulfil; ``problems`` are those that somebody else found already."""

    problems: tuple[str, ...] = ()
    supported: tuple[Supported, ...] = ()
    ports: tuple[PortDemand, ...] = ()
    disk: tuple[DiskDemand, ...] = ()
    memory_mb: int = 0


@dataclass(frozen=True)
class Verdict:
    """What stands in the way, what only deserves a word, and the system that was found."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    os: dict[str, str] = field(default_factory=dict)

    def message(self) -> str:
        """All problems as one text for the user."""
        count = len(self.problems)
        lines = [f"{count} problem{'' if count == 1 else 's'}; nothing was changed:"]
        # A problem of several lines stays one item of the list.
        lines += [f"  {number}. {text}".replace("\n", "\n     ") for number, text in enumerate(self.problems, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class FileSystem:
    """One mounted file system: its device number and what an ordinary user can still write, in MiB."""

    device: int
    free_mb: int


def file_system(path: Path) -> FileSystem:
    """The file system that *path* (existing) is on. Raises OSError."""
    stats = os.statvfs(path)
    # f_bavail leaves out what is reserved for root: a disk filled up to that is full for the app.
    return FileSystem(path.stat().st_dev, stats.f_bavail * stats.f_frsize // _MIB)


def check(host: Host, demands: Demands, measure: Callable[[Path], FileSystem] = file_system) -> Verdict:
    """Compares *host* with *demands*, without changing or locking anything.

    Raises PreflightError for a demand that makes no sense (an address that is none, a relative path).
    """
    system = _os_release(host)
    verdict = Verdict(problems=list(demands.problems), os=system)
    _check_os(system, demands.supported, verdict)
    verdict.problems.extend(_check_ports(host, demands.ports))
    verdict.problems.extend(_check_disk(host, demands.disk, measure))
    verdict.problems.extend(_check_memory(host, demands.memory_mb))
    unique = list(dict.fromkeys(text.strip() for text in verdict.problems if text.strip()))
    return Verdict(unique, verdict.warnings, system)


# --- operating system -------------------------------------------------------------------------------------------------


def _os_release(host: Host) -> dict[str, str]:
    """``id``, ``name`` and ``version`` from os-release(5); empty strings where the file does not say."""
    text = host.read("/etc/os-release") or host.read("/usr/lib/os-release") or ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            values[name] = re.sub(r"\\(.)", r"\1", value.strip().strip("\"'"))
    return {
        "id": values.get("ID", "").lower(),
        "name": values.get("PRETTY_NAME") or values.get("NAME", ""),
        "version": values.get("VERSION_ID", ""),
    }


def _check_os(system: Mapping[str, str], supported: Iterable[Supported], verdict: Verdict) -> None:
    rows = list(supported)
    if not rows:
        return
    name = system["name"] or " ".join(filter(None, (system["id"], system["version"]))) or "a system without os-release"
    match = [row for row in rows if row.id == system["id"] and (not row.versions or system["version"] in row.versions)]
    if not match:
        verdict.problems.append(f"{name} is not supported; supported are {_list_systems(rows)}")
    elif not any(row.tested for row in match):
        tested = _list_systems([row for row in rows if row.tested])
        verdict.warnings.append(f"{name} should work, but is not tested; tested are {tested or 'none'}")


def _list_systems(rows: Iterable[Supported]) -> str:
    return ", ".join(f"{row.id} {'/'.join(row.versions)}".strip() for row in rows)


# --- ports ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listener:
    address: Address
    port: int
    uid: str
    inode: str


@dataclass(frozen=True)
class _Process:
    pid: int
    name: str
    command: tuple[str, ...]


def _check_ports(host: Host, demands: Iterable[PortDemand]) -> list[str]:
    demands = list(demands)
    for demand in demands:
        if not 1 <= demand.port <= _MAX_PORT:
            raise PreflightError(f"ports: {demand.port} (for {demand.used_for}) is no port; it has to be 1 to 65535")
    problems = _asked_twice(demands)
    listeners = _listeners(host)
    taken = [(demand, _conflicts(demand, listeners)) for demand in demands]
    wanted = {listener.inode for _demand, found in taken for listener in found}
    holders = _holders(host, wanted) if wanted else {}
    for demand, found in taken:
        for listener in found:
            processes = holders.get(listener.inode, [])
            if not processes and all(each.inode != listener.inode for each in _listeners(host)):
                continue  # It ended while its holder was looked for: a slot that was being stopped.
            if not any(_is_allowed(process, demand.allowed) for process in processes):
                problems.append(_taken(demand, listener, processes))
                break
    return problems


def _asked_twice(demands: list[PortDemand]) -> list[str]:
    """Two of our own parts that want the same port on the same address: the second would fail to start."""
    return [
        f"port {second.port} is wanted for both {first.used_for} and {second.used_for}; {_cure(second)}"
        for index, second in enumerate(demands)
        for first in demands[:index]
        if first.port == second.port and first.used_for != second.used_for and _overlaps(_parse(first), _parse(second))
    ]


def _taken(demand: PortDemand, listener: _Listener, processes: list[_Process]) -> str:
    if processes:
        holder = f"{processes[0].name} (pid {processes[0].pid})"
    else:
        holder = f"a process of uid {listener.uid} that cannot be looked into"
    where = f"{demand.address}:{demand.port}" if demand.address else str(demand.port)
    return f"port {where} (for {demand.used_for}) is held by {holder}; stop it or {_cure(demand)}"


def _cure(demand: PortDemand) -> str:
    return f"set {demand.variable}" if demand.variable else "choose another port"


def _is_allowed(process: _Process, allowed: Iterable[str]) -> bool:
    return any(process.name == other[:_COMM_LENGTH] or other in process.command for other in allowed)


def _parse(demand: PortDemand) -> Address | None:
    """The demanded address; None stands for all of them."""
    if demand.address in ("", "*"):
        return None
    text = "127.0.0.1" if demand.address == "localhost" else demand.address.strip("[]")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise PreflightError(
            f"ports: address {demand.address!r} of port {demand.port} is no IP address; "
            f"leave it out for all addresses, or write one such as 127.0.0.1"
        ) from None


def _conflicts(demand: PortDemand, listeners: Iterable[_Listener]) -> list[_Listener]:
    address = _parse(demand)
    return [each for each in listeners if each.port == demand.port and _overlaps(address, each.address)]


def _overlaps(first: Address | None, second: Address | None) -> bool:
    """Whether binding one address fails while the other is bound (ip(7), ipv6(7) with IPV6_V6ONLY off)."""
    if first is None or second is None:
        return True
    first, second = _unmapped(first), _unmapped(second)
    for one, other in ((first, second), (second, first)):
        if one.is_unspecified and (one.version == 6 or other.version == 4):  # noqa: PLR2004 IP versions
            return True
    return first == second


def _unmapped(address: Address) -> Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def _listeners(host: Host) -> list[_Listener]:
    """All listening TCP sockets (proc_pid_net(5), ``/proc/net/tcp``); broken lines are skipped."""
    listeners = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (host.read(path) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTEN:  # noqa: PLR2004 the column of the inode is the tenth
                continue
            address, _, port = fields[1].partition(":")
            try:
                listeners.append(_Listener(_address(address), int(port, 16), fields[7], fields[9]))
            except ValueError:
                continue
    return listeners


def _address(text: str) -> Address:
    """An address as the kernel prints it: words of 32 bits, each a number of the machine's own byte order."""
    if len(text) not in (8, 32):
        raise ValueError(text)
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _holders(host: Host, inodes: set[str]) -> dict[str, list[_Process]]:
    """Socket inode → the processes that have it open, lowest pid first; those of others only for root."""
    holders: dict[str, list[_Process]] = {}
    for pid in sorted(int(name) for name in host.names("/proc") if name.isdecimal()):
        folder = f"/proc/{pid}/fd"
        for descriptor in host.names(folder):
            match = re.fullmatch(r"socket:\[(\d+)\]", host.link(f"{folder}/{descriptor}") or "")
            if match and match.group(1) in inodes:
                name = host.read(f"/proc/{pid}/comm") or "unknown"
                processes = holders.setdefault(match.group(1), [])
                if not processes or processes[-1].pid != pid:
                    command = (host.read(f"/proc/{pid}/cmdline") or "").split("\0")
                    processes.append(_Process(pid, name, tuple(command)))
    return holders


# --- disk and memory --------------------------------------------------------------------------------------------------


def _check_disk(host: Host, demands: Iterable[DiskDemand], measure: Callable[[Path], FileSystem]) -> list[str]:
    """Adds up what is demanded of one file system: two folders on one disk need room for both."""
    shares: dict[int, list[DiskDemand]] = {}
    free: dict[int, int] = {}
    problems = []
    for demand in demands:
        if not demand.path.startswith("/"):
            raise PreflightError(f"disk: path {demand.path!r} (for {demand.used_for}) has to be absolute")
        try:
            found = measure(host.path(_existing(host, demand.path)))
        except OSError as error:
            problems.append(f"the free space for {demand.path} cannot be found out: {error.strerror or error}")
            continue
        shares.setdefault(found.device, []).append(demand)
        free[found.device] = found.free_mb
    for device, group in shares.items():
        total = sum(demand.free_mb for demand in group)
        if free[device] < total:
            parts = " and ".join(f"{demand.path} ({demand.free_mb} MB for {demand.used_for})" for demand in group)
            names = " or ".join(dict.fromkeys(demand.variable for demand in group if demand.variable))
            problems.append(
                f"too little disk space: {parts} need {total} MB, but only {free[device]} MB are free there; "
                f"free some, or {f'set {names}' if names else 'choose another path'}"
            )
    return problems


def _existing(host: Host, path: str) -> str:
    while path != "/" and host.first(path) is None:
        path = path.rstrip("/").rpartition("/")[0] or "/"
    return path


def _check_memory(host: Host, minimum: int) -> list[str]:
    memory = usable_memory_mb(host)
    if memory is None or memory >= minimum:
        return []
    return [f"too little memory: {memory} MB, and at least {minimum} MB are needed; resize the machine"]
