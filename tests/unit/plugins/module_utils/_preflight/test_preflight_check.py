# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._preflight.check import (
    DiskRequirement,
    FileSystem,
    HostRequirements,
    PortRequirement,
    PreflightError,
    PreflightResult,
    Supported,
    check,
    file_system,
)
from hypothesis import given
from hypothesis import strategies as st

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
SUPPORTED = (Supported("debian", ("12", "13")), Supported("ubuntu", ("22.04", "24.04"), tested=False))
ANY4, LOOP4, LAN4 = "00000000", "0100007F", "0500000A"
ANY6, LOOP6 = "0" * 32, "0" * 24 + "01000000"
MAPPED_LOOP4 = "0000000000000000FFFF00000100007F"


def listen(address: str, port: int, inode: int = 4711, uid: int = 0, state: str = "0A") -> str:
    remote = "0" * len(address)
    queues = "00000000:00000000 00:00000000 00000000"
    return f"   0: {address}:{port:04X} {remote}:0000 {state} {queues} {uid:5d} 0 {inode} 1 0\n"


class Machine:
    """A fake machine with its files below ``tree``."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.host = Host(tree, {})

    def file(self, path: str, text: str) -> Machine:
        target = self.tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return self

    def sockets(self, *lines: str, version: str = "") -> Machine:
        return self.file(f"/proc/net/tcp{version}", HEADER + "".join(lines))

    def process(self, pid: int, comm: str, *inodes: int, command: tuple[str, ...] = ()) -> Machine:
        self.file(f"/proc/{pid}/comm", comm + "\n")
        self.file(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in command))
        folder = self.tree / f"proc/{pid}/fd"
        folder.mkdir()
        (folder / "0").symlink_to("/dev/null")
        for number, inode in enumerate(inodes, 3):
            (folder / str(number)).symlink_to(f"socket:[{inode}]")
        return self

    def ports(self, *requirements: PortRequirement) -> list[str]:
        return check(self.host, HostRequirements(ports=requirements)).problems


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- ports ------------------------------------------------------------------------------------------------------------


def test_holder_is_reported_with_the_remedy(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 80)).process(123, "apache2", 4711).process(124, "apache2", 4711)
    assert machine.ports(PortRequirement(80, "nginx", allowed=("nginx",), variable="nginx_http_port")) == [
        "port 80 (for nginx) is held by apache2 (pid 123); stop it or set nginx_http_port"
    ]


def test_an_allowed_process_may_hold_the_port(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 80)).sockets(listen(ANY6, 80, 4712), version="6")
    machine.process(77, "nginx", 4711, 4712).process(78, "nginx", 4711, 4712)
    assert machine.ports(PortRequirement(80, "nginx", allowed=("nginx",))) == []


def test_an_allowed_python_program_is_recognized_by_its_command_line(machine: Machine) -> None:
    requirement = PortRequirement(5001, "the blue slot", allowed=("our.app:application",), variable="panel_blue_port")
    machine.sockets(listen(LOOP4, 5001)).process(7, "python3", 4711, command=("python3", "-m", "http.server"))
    assert "held by python3 (pid 7)" in machine.ports(requirement)[0]
    machine.file("/proc/7/cmdline", "python3\0-m\0gunicorn\0our.app:application\0")
    assert machine.ports(requirement) == []


def test_an_allowed_holder_does_not_hide_another_on_a_second_address(machine: Machine) -> None:
    machine.sockets(listen(LOOP4, 80, 1), listen(LAN4, 80, 2)).process(77, "nginx", 1).process(90, "caddy", 2)
    assert machine.ports(PortRequirement(80, "nginx", allowed=("nginx",))) == [
        "port 80 (for nginx) is held by caddy (pid 90); stop it or choose another port"
    ]


def test_socket_activation_by_pid_1_is_allowed_if_the_server_has_the_socket(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 80)).process(1, "systemd", 4711).process(77, "nginx", 4711)
    assert machine.ports(PortRequirement(80, "nginx", allowed=("nginx",))) == []


def test_long_names_are_truncated_by_the_kernel(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 80)).process(5, "a-very-long-nam", 4711)
    assert machine.ports(PortRequirement(80, "x", allowed=("a-very-long-name-indeed",))) == []


def test_holder_of_another_user_is_reported_by_uid(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 8080, uid=33))
    (problem,) = machine.ports(PortRequirement(8080, "the panel", allowed=("supervisord",), variable="panel_port"))
    assert "a process of uid 33, whose name is only visible to root" in problem
    assert problem.endswith("stop it or set panel_port")


@pytest.mark.parametrize(
    ("wanted", "listening", "version", "taken"),
    [
        ("", LOOP4, "", True),
        ("*", LOOP6, "6", True),
        ("127.0.0.1", LOOP4, "", True),
        ("localhost", LOOP4, "", True),
        ("127.0.0.1", ANY4, "", True),
        ("127.0.0.1", ANY6, "6", True),
        ("127.0.0.1", MAPPED_LOOP4, "6", True),
        ("127.0.0.1", LAN4, "", False),
        ("127.0.0.1", LOOP6, "6", False),
        ("0.0.0.0", LAN4, "", True),
        ("0.0.0.0", LOOP6, "6", False),
        ("::", LAN4, "", True),
        ("[::1]", LOOP6, "6", True),
        ("::1", ANY4, "", False),
    ],
)
def test_overlapping_addresses(wanted: str, listening: str, version: str, taken: bool, machine: Machine) -> None:
    machine.sockets(listen(listening, 5001), version=version)
    assert bool(machine.ports(PortRequirement(5001, "the blue slot", wanted))) is taken


@pytest.mark.parametrize("state", ["01", "06", "08"])
def test_connections_are_not_listeners(state: str, machine: Machine) -> None:
    assert machine.sockets(listen(ANY4, 80, state=state)).ports(PortRequirement(80, "nginx")) == []


def test_other_ports_and_invalid_lines_are_ignored(machine: Machine) -> None:
    machine.sockets(listen(ANY4, 8080), "rubbish\n", listen("XYZ", 80), listen("0000", 80))
    assert machine.ports(PortRequirement(80, "nginx")) == []


def test_missing_proc(machine: Machine) -> None:
    assert machine.ports(PortRequirement(80, "nginx")) == []


def test_two_requirements_for_one_port(machine: Machine) -> None:
    requirements = (
        PortRequirement(8080, "nginx", variable="nginx_http_port"),
        PortRequirement(8080, "the panel", "127.0.0.1", variable="panel_port"),
        PortRequirement(8080, "the panel", "127.0.0.1", variable="panel_port"),
    )
    assert machine.ports(*requirements) == ["port 8080 is needed for both nginx and the panel; set panel_port"]


@pytest.mark.parametrize(
    "requirement", [PortRequirement(0, "x"), PortRequirement(65536, "x"), PortRequirement(80, "x", "panel.example")]
)
def test_invalid_port_or_address(requirement: PortRequirement, machine: Machine) -> None:
    with pytest.raises(PreflightError, match=r"ports: .*(0|65536|'panel\.example')"):
        machine.ports(requirement)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_real_listener_is_found_with_its_process(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"{address} is not there")
        server.listen()
        port = server.getsockname()[1]
        (problem,) = check(Host(), HostRequirements(ports=(PortRequirement(port, "a test", address),))).problems
        comm = Path("/proc/self/comm").read_text().strip()
        assert f"{comm} (pid {os.getpid()})" in problem
        assert (
            check(Host(), HostRequirements(ports=(PortRequirement(port, "a test", address, (comm,)),))).problems == []
        )
    assert check(Host(), HostRequirements(ports=(PortRequirement(port, "a test", address),))).problems == []


# --- system -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem", "warning"),
    [
        ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "", ""),
        ("ID=debian\nVERSION_ID='13'\n", "", ""),
        (
            "# a comment\n\nID=ubuntu\nVERSION_ID=24.04\nNAME=Ubuntu\n",
            "",
            "Ubuntu should work, but is not tested; tested systems: debian 12/13",
        ),
        (
            'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n',
            "Debian GNU/Linux 11 (bullseye) is not supported; supported systems: debian 12/13, ubuntu 22.04/24.04",
            "",
        ),
        # testing and unstable have no VERSION_ID
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n', "Debian GNU/Linux forky/sid is not supported", ""),
        ("ID=linuxmint\nID_LIKE=ubuntu\nVERSION_ID=24.04\n", "linuxmint 24.04 is not supported", ""),
        ("", "a system without os-release is not supported", ""),
    ],
)
def test_system(text: str, problem: str, warning: str, machine: Machine) -> None:
    result = check(machine.file("/etc/os-release", text).host, HostRequirements(supported=SUPPORTED))
    assert len(result.problems) == bool(problem)
    assert "".join(result.problems).startswith(problem)
    assert result.warnings == ([warning] if warning else [])


def test_system_from_the_vendor_file_and_any_version(machine: Machine) -> None:
    machine.file("/usr/lib/os-release", "ID=nixos\nVERSION_ID=24.11\n")
    result = check(machine.host, HostRequirements(supported=(Supported("nixos"),)))
    assert result.problems == []
    assert result.os == {"id": "nixos", "name": "", "version": "24.11"}


def test_no_requirements(machine: Machine) -> None:
    assert check(machine.host, HostRequirements()).problems == []


# --- disk and memory --------------------------------------------------------------------------------------------------


def test_requirements_on_one_disk_are_added(machine: Machine) -> None:
    disk = (
        DiskRequirement("/opt/aapanel", 700, "releases", "panel_base_dir"),
        DiskRequirement("/var/lib/aapanel", 500, "data", "panel_data_dir"),
    )
    result = check(machine.host, HostRequirements(disk=disk), lambda path: FileSystem(1, 1000))
    (problem,) = result.problems
    assert problem == (
        "too little disk space: /opt/aapanel (700 MB for releases) and /var/lib/aapanel (500 MB for data) "
        "need 1200 MB, but only 1000 MB are free there; free some space, or set panel_base_dir or panel_data_dir"
    )
    assert check(machine.host, HostRequirements(disk=disk), lambda path: FileSystem(1, 1200)).problems == []


def test_disks_are_checked_separately(machine: Machine) -> None:
    (machine.tree / "opt").mkdir()
    (machine.tree / "var").mkdir()
    sizes = {"opt": FileSystem(1, 700), "var": FileSystem(2, 400)}
    disk = (DiskRequirement("/opt/a/b", 700, "releases"), DiskRequirement("/var/c", 500, "data"))
    (problem,) = check(machine.host, HostRequirements(disk=disk), lambda path: sizes[path.name]).problems
    assert "/var/c (500 MB for data) need 500 MB, but only 400 MB" in problem
    assert problem.endswith("choose another path")


def test_disk_that_cannot_be_measured(machine: Machine) -> None:
    def broken(path: Path) -> FileSystem:
        raise OSError(5, "Input/output error")

    (problem,) = check(machine.host, HostRequirements(disk=(DiskRequirement("/srv", 1, "data"),)), broken).problems
    assert problem == "cannot determine the free space for /srv: Input/output error; check that the path can be reached"


def test_relative_path_is_refused(machine: Machine) -> None:
    with pytest.raises(PreflightError, match=r"disk: path 'srv' \(for data\) must be absolute"):
        check(machine.host, HostRequirements(disk=(DiskRequirement("srv", 1, "data"),)))


def test_real_disk(tmp_path: Path) -> None:
    stats = os.statvfs(tmp_path)
    found = file_system(tmp_path)
    assert found.device == tmp_path.stat().st_dev
    assert abs(found.free_mb - stats.f_bavail * stats.f_frsize // 2**20) < 200


@pytest.mark.parametrize(("minimum", "problems"), [(0, 0), (953, 0), (954, 1)])
def test_memory(minimum: int, problems: int, machine: Machine) -> None:
    machine.file("/proc/meminfo", "MemTotal:         976400 kB\n")
    found = check(machine.host, HostRequirements(memory_mb=minimum)).problems
    assert len(found) == problems
    if found:
        assert found == ["too little memory: 953 MB, but at least 954 MB are needed; resize the machine"]


def test_unknown_memory_is_no_problem(machine: Machine) -> None:
    assert check(machine.host, HostRequirements(memory_mb=512)).problems == []


# --- all in one -------------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_together(machine: Machine) -> None:
    machine.file("/etc/os-release", "ID=alpine\n").file("/proc/meminfo", "MemTotal: 102400 kB\n")
    machine.sockets(listen(ANY4, 80)).process(9, "apache2", 4711)
    requirements = HostRequirements(
        problems=("panel_domian: unknown variable; did you mean panel_domain?", " ", "a problem\nin two lines"),
        supported=SUPPORTED,
        ports=(PortRequirement(80, "nginx"), PortRequirement(80, "nginx")),
        disk=(DiskRequirement("/opt", 10, "releases"),),
        memory_mb=400,
    )
    result = check(machine.host, requirements, lambda path: FileSystem(1, 5))
    lines = result.message().splitlines()
    assert lines[0] == "6 problems; nothing was changed:"
    assert [line[:5] for line in lines[1:]] == ["  1. ", "  2. ", "     ", "  3. ", "  4. ", "  5. ", "  6. "]


def test_one_problem_is_singular() -> None:
    assert PreflightResult(["x"]).message() == "1 problem; nothing was changed:\n  1. x"


@given(text=st.text(), table=st.text())
def test_any_file_content_is_accepted(text: str, table: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    machine = Machine(tmp_path_factory.mktemp("m"))
    safe = text.encode("utf-8", "replace").decode()
    machine.file("/etc/os-release", safe).file("/proc/net/tcp", HEADER + table.encode("utf-8", "replace").decode())
    machine.file("/proc/meminfo", safe)
    check(machine.host, HostRequirements(supported=SUPPORTED, ports=(PortRequirement(80, "x"),), memory_mb=1))
