# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a host with the requirements of the roles."""

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
_COMM_LENGTH = 15  # proc_pid_comm(5): longer names are truncated
_MAX_PORT = 65535
_MIB = 1 << 20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PreflightError(Exception):
    """Invalid requirement; the message names the option, its value and the valid values."""


@dataclass(frozen=True)
class Supported:
    """A system that the collection runs on.

    :param versions: accepted versions; empty accepts all.
    """

    id: str
    versions: tuple[str, ...] = ()
    tested: bool = True


@dataclass(frozen=True)
class PortRequirement:
    """A TCP port that must be free, or held by an allowed process.

    :param address: IP address to bind; empty for all addresses.
    :param allowed: process names as in ``ps -o comm``, or words of the command lines, because every Python program is
        named "python".
    :param variable: the role variable that sets the port.
    """

    port: int
    used_for: str
    address: str = ""
    allowed: tuple[str, ...] = ()
    variable: str = ""


@dataclass(frozen=True)
class DiskRequirement:
    """Free space that a path needs.

    :param path: absolute; it may not exist yet.
    :param free_mb: MiB.
    :param variable: the role variable that sets the path.
    """

    path: str
    free_mb: int
    used_for: str
    variable: str = ""


@dataclass(frozen=True)
class HostRequirements:
    """All requirements on a host.

    :param problems: problems that were found before this check.
    """

    problems: tuple[str, ...] = ()
    supported: tuple[Supported, ...] = ()
    ports: tuple[PortRequirement, ...] = ()
    disk: tuple[DiskRequirement, ...] = ()
    memory_mb: int = 0


@dataclass(frozen=True)
class PreflightResult:
    """Problems, warnings, and the system that was found."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    os: dict[str, str] = field(default_factory=dict)

    def message(self) -> str:
        """Return all problems as one text for the user."""
        count = len(self.problems)
        lines = [f"{count} problem{'' if count == 1 else 's'}; nothing was changed:"]
        # Indent further lines, so that a multi-line problem stays one list item.
        lines += [f"  {number}. {text}".replace("\n", "\n     ") for number, text in enumerate(self.problems, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system.

    :param device: device number.
    :param free_mb: MiB that an unprivileged user can still write.
    """

    device: int
    free_mb: int


def file_system(path: Path) -> FileSystem:
    """Return the file system of an existing path.

    :raises OSError: the path cannot be read.
    """
    stats = os.statvfs(path)
    # f_bavail excludes the blocks reserved for root, which the app cannot use.
    return FileSystem(path.stat().st_dev, stats.f_bavail * stats.f_frsize // _MIB)


def check(
    host: Host, requirements: HostRequirements, measure: Callable[[Path], FileSystem] = file_system
) -> PreflightResult:
    """Compare a host with the requirements, without changing or locking anything.

    :raises PreflightError: a requirement is invalid, such as a relative path.
    """
    system = _os_release(host)
    result = PreflightResult(problems=list(requirements.problems), os=system)
    _check_os(system, requirements.supported, result)
    result.problems.extend(_check_ports(host, requirements.ports))
    result.problems.extend(_check_disk(host, requirements.disk, measure))
    result.problems.extend(_check_memory(host, requirements.memory_mb))
    unique = list(dict.fromkeys(text.strip() for text in result.problems if text.strip()))
    return PreflightResult(unique, result.warnings, system)


# --- operating system -------------------------------------------------------------------------------------------------


def _os_release(host: Host) -> dict[str, str]:
    """Return ``id``, ``name`` and ``version`` from os-release(5); empty strings for missing fields."""
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


def _check_os(system: Mapping[str, str], supported: Iterable[Supported], result: PreflightResult) -> None:
    rows = list(supported)
    if not rows:
        return
    name = system["name"] or " ".join(filter(None, (system["id"], system["version"]))) or "a system without os-release"
    match = [row for row in rows if row.id == system["id"] and (not row.versions or system["version"] in row.versions)]
    if not match:
        result.problems.append(f"{name} is not supported; supported systems: {_list_systems(rows)}")
    elif not any(row.tested for row in match):
        tested = _list_systems([row for row in rows if row.tested])
        result.warnings.append(f"{name} should work, but is not tested; tested systems: {tested or 'none'}")


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


def _check_ports(host: Host, requirements: Iterable[PortRequirement]) -> list[str]:
    requirements = list(requirements)
    for requirement in requirements:
        if not 1 <= requirement.port <= _MAX_PORT:
            raise PreflightError(
                f"ports: invalid port {requirement.port} (for {requirement.used_for}); use a number from 1 to 65535"
            )
    problems = _duplicate_ports(requirements)
    listeners = _listeners(host)
    taken = [(requirement, _conflicts(requirement, listeners)) for requirement in requirements]
    wanted = {listener.inode for _requirement, found in taken for listener in found}
    holders = _holders(host, wanted) if wanted else {}
    for requirement, found in taken:
        for listener in found:
            processes = holders.get(listener.inode, [])
            if not processes and all(each.inode != listener.inode for each in _listeners(host)):
                continue  # The socket closed during the search for its process, as when a slot stops.
            if not any(_is_allowed(process, requirement.allowed) for process in processes):
                problems.append(_describe_conflict(requirement, listener, processes))
                break
    return problems


def _duplicate_ports(requirements: list[PortRequirement]) -> list[str]:
    """Return a problem for each pair of services that need the same port on the same address."""
    return [
        f"port {second.port} is needed for both {first.used_for} and {second.used_for}; {_remedy(second)}"
        for index, second in enumerate(requirements)
        for first in requirements[:index]
        if first.port == second.port and first.used_for != second.used_for and _overlaps(_parse(first), _parse(second))
    ]


def _describe_conflict(requirement: PortRequirement, listener: _Listener, processes: list[_Process]) -> str:
    if processes:
        holder = f"{processes[0].name} (pid {processes[0].pid})"
    else:
        holder = f"a process of uid {listener.uid}, whose name is only visible to root"
    where = f"{requirement.address}:{requirement.port}" if requirement.address else str(requirement.port)
    return f"port {where} (for {requirement.used_for}) is held by {holder}; stop it or {_remedy(requirement)}"


def _remedy(requirement: PortRequirement) -> str:
    return f"set {requirement.variable}" if requirement.variable else "choose another port"


def _is_allowed(process: _Process, allowed: Iterable[str]) -> bool:
    return any(process.name == other[:_COMM_LENGTH] or other in process.command for other in allowed)


def _parse(requirement: PortRequirement) -> Address | None:
    """Return the required address; None for all addresses."""
    if requirement.address in ("", "*"):
        return None
    text = "127.0.0.1" if requirement.address == "localhost" else requirement.address.strip("[]")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise PreflightError(
            f"ports: invalid address {requirement.address!r} for port {requirement.port}; "
            f"use an IP address such as 127.0.0.1, or omit it for all addresses"
        ) from None


def _conflicts(requirement: PortRequirement, listeners: Iterable[_Listener]) -> list[_Listener]:
    address = _parse(requirement)
    return [each for each in listeners if each.port == requirement.port and _overlaps(address, each.address)]


def _overlaps(first: Address | None, second: Address | None) -> bool:
    """Return whether binding one address fails while the other is bound (ip(7), ipv6(7) with IPV6_V6ONLY off)."""
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
    """Return all listening TCP sockets (proc_pid_net(5), ``/proc/net/tcp``); skips invalid lines."""
    listeners = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (host.read(path) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTEN:  # noqa: PLR2004 the column of the inode is the tenth
                continue
            address, _colon, port = fields[1].partition(":")
            try:
                listeners.append(_Listener(_address(address), int(port, 16), fields[7], fields[9]))
            except ValueError:
                continue
    return listeners


def _address(text: str) -> Address:
    """Parse an address as the kernel prints it: 32-bit words in the machine's byte order."""
    if len(text) not in (8, 32):
        raise ValueError(text)
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _holders(host: Host, inodes: set[str]) -> dict[str, list[_Process]]:
    """Return the processes by the inode of the sockets that they have open, lowest pid first.

    Processes of other users are visible only to root.
    """
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


def _check_disk(
    host: Host, requirements: Iterable[DiskRequirement], measure: Callable[[Path], FileSystem]
) -> list[str]:
    """Compare free space with the sum of the requirements on each file system."""
    shares: dict[int, list[DiskRequirement]] = {}
    free: dict[int, int] = {}
    problems = []
    for requirement in requirements:
        if not requirement.path.startswith("/"):
            raise PreflightError(f"disk: path {requirement.path!r} (for {requirement.used_for}) must be absolute")
        try:
            found = measure(host.path(_nearest_existing(host, requirement.path)))
        except OSError as error:
            problems.append(
                f"cannot determine the free space for {requirement.path}: {error.strerror or error}; "
                f"check that the path can be reached"
            )
            continue
        shares.setdefault(found.device, []).append(requirement)
        free[found.device] = found.free_mb
    for device, group in shares.items():
        total = sum(requirement.free_mb for requirement in group)
        if free[device] < total:
            parts = " and ".join(
                f"{requirement.path} ({requirement.free_mb} MB for {requirement.used_for})" for requirement in group
            )
            names = " or ".join(dict.fromkeys(requirement.variable for requirement in group if requirement.variable))
            problems.append(
                f"too little disk space: {parts} need {total} MB, but only {free[device]} MB are free there; "
                f"free some space, or {f'set {names}' if names else 'choose another path'}"
            )
    return problems


def _nearest_existing(host: Host, path: str) -> str:
    while path != "/" and host.first(path) is None:
        path = path.rstrip("/").rpartition("/")[0] or "/"
    return path


def _check_memory(host: Host, minimum: int) -> list[str]:
    memory = usable_memory_mb(host)
    if memory is None or memory >= minimum:
        return []
    return [f"too little memory: {memory} MB, but at least {minimum} MB are needed; resize the machine"]
