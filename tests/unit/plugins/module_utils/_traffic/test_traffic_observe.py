# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.observe import (
    Slot,
    count_connections,
    observe,
    other_slot,
    read_slot,
)

PRINT = "ab" * 32


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for slot in ("blue", "green"):
        (tmp_path / "slots" / slot).mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path


def fill(host: Path, slot: str, release: str, sock: Path) -> None:
    (host / "slots" / slot / "release").symlink_to(f"../../releases/{release}")
    (host / "slots" / slot / "sock").symlink_to(sock)
    (host / "etc" / f"{slot}.env").write_text(
        f'# Slot\n# fingerprint: {PRINT}\nAAPANEL_RELEASE="{release}"\nHOST="127.0.0.1"\nPORT="1"\n'
    )


def test_an_empty_host_has_no_live_slot_and_blue_is_idle(tmp_path: Path) -> None:
    traffic = observe(tmp_path / "opt", tmp_path / "etc")
    assert traffic.live is None
    assert traffic.idle == "blue"
    assert traffic.slots["blue"] == Slot(None, None, fingerprint=None, address=None, listening=False)
    assert not traffic.slots["blue"].startable


def test_the_live_link_names_the_live_slot(host: Path, listener: Path) -> None:
    fill(host, "blue", "1.0-abc", listener)
    (host / "live").symlink_to("slots/blue")
    traffic = observe(host, host / "etc")
    assert (traffic.live, traffic.idle) == ("blue", "green")
    assert traffic.slots["blue"] == Slot("1.0-abc", "1.0-abc", PRINT, ("127.0.0.1", 1), listening=True)
    assert traffic.slots["blue"].startable
    assert traffic.slots["green"].listening is False


def test_a_stale_socket_is_not_listening(host: Path) -> None:
    dead = host / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    fill(host, "green", "1.1-def", dead)
    (host / "live").symlink_to("slots/green")
    traffic = observe(host, host / "etc")
    assert traffic.live == "green"
    assert traffic.slots["green"].listening is False


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.0.0.7"])
def test_a_slot_without_nginx_is_checked_over_tcp(host: Path, address: str) -> None:
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        (host / "etc" / "blue.env").write_text(f'HOST="{address}"\nPORT="{server.getsockname()[1]}"\n')
        assert observe(host, host / "etc").slots["blue"].listening is True
    assert observe(host, host / "etc").slots["blue"].listening is False


@pytest.mark.parametrize("target", ["slots/red", "/etc/passwd", "releases/1.0", "blue"])
def test_a_live_link_to_another_target_is_refused(host: Path, target: str) -> None:
    (host / "live").symlink_to(target)
    with pytest.raises(TrafficError, match="not a slot"):
        observe(host, host / "etc")


def test_a_live_link_that_is_no_link_is_refused(host: Path) -> None:
    (host / "live").mkdir()
    with pytest.raises(TrafficError, match="not a symlink"):
        observe(host, host / "etc")


def test_the_service_digest_changes_with_the_file(host: Path) -> None:
    unit = host / "aapanel@.service"
    assert observe(host, host / "etc", unit).service_digest is None
    unit.write_text("[Service]\n")
    before = observe(host, host / "etc", unit).service_digest
    unit.write_text("[Service]\nNice=5\n")
    assert before is not None
    assert observe(host, host / "etc", unit).service_digest not in {None, before}


def test_a_slot_between_two_releases_is_not_startable(host: Path, listener: Path) -> None:
    fill(host, "green", "1.1-def", listener)
    link = host / "slots/green/release"
    link.unlink()
    link.symlink_to("../../releases/1.2-fed")
    slot = read_slot(host / "slots/green", host / "etc/green.env")
    assert (slot.release, slot.settings_release, slot.startable) == ("1.2-fed", "1.1-def", False)
    (host / "etc/green.env").unlink()
    assert not read_slot(host / "slots/green", host / "etc/green.env").startable


@pytest.mark.parametrize("port", ["", "x", "-1"])
def test_an_invalid_port_is_no_address(host: Path, port: str) -> None:
    (host / "etc" / "blue.env").write_text(f'HOST="127.0.0.1"\nPORT="{port}"\n')
    assert observe(host, host / "etc").slots["blue"].address is None


def test_a_path_too_long_for_a_socket_is_not_listening(host: Path) -> None:
    deep = host / ("x" * 110)
    deep.mkdir()
    fill(host, "blue", "1.0-abc", deep / "s")
    (deep / "sock").symlink_to("s")
    assert read_slot(deep, host / "etc/blue.env").listening is False


def test_there_are_two_slots() -> None:
    assert (other_slot("blue"), other_slot("green")) == ("green", "blue")


# --- connections ------------------------------------------------------------------------------------------------------

# Recorded on Linux 6.18 in a separate network namespace: blue has two connections, and a third one in its backlog;
# listeners with similar names have one connection each.
TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
00000000e39b87f0: 00000002 00000000 00010000 0001 01 3971507 /run/aapanel/blue.sock
00000000e1cb4240: 00000002 00000000 00010000 0001 01 3971513 /run/aapanel/green.sock
0000000038f9fd69: 00000002 00000000 00010000 0001 01 3971516 /run/aapanel/blue.sock.old
000000008ba8ba65: 00000002 00000000 00010000 0001 01 3971519 /run/a panel/blue.sock
0000000094da0eef: 00000003 00000000 00000000 0001 03 3971508
00000000f9aba09b: 00000003 00000000 00000000 0001 03 3971520
0000000099dbe8a7: 00000003 00000000 00000000 0001 03 3971526
00000000d1ce5d4d: 00000003 00000000 00000000 0001 03 3971521 /run/a panel/blue.sock
00000000335ed008: 00000003 00000000 00000000 0001 03 3971523
00000000be589411: 00000003 00000000 00000000 0001 03 3971510
00000000c47bc979: 00000003 00000000 00000000 0001 03 3971524 @/run/aapanel/blue.sock
00000000cf174f38: 00000003 00000000 00000000 0001 03 3971525
0000000094d45c4c: 00000003 00000000 00000000 0001 03 3971517
000000009be42ba6: 00000003 00000000 00000000 0001 02     0 /run/aapanel/blue.sock
0000000068548a9e: 00000003 00000000 00000000 0001 03 3971518 /run/aapanel/blue.sock.old
000000008fccc7d3: 00000003 00000000 00000000 0001 03 3971512
00000000851725c5: 00000003 00000000 00000000 0001 03 3971509 /run/aapanel/blue.sock
00000000352cf24c: 00000003 00000000 00000000 0001 03 3971515 /run/aapanel/green.sock
000000004fd0442b: 00000003 00000000 00000000 0001 03 3971511 /run/aapanel/blue.sock
00000000f1ef2a22: 00000003 00000000 00000000 0001 03 3971514
00000000408cf561: 00000002 00000000 00010000 0001 01 3971522 @/run/aapanel/blue.sock
"""


@pytest.mark.parametrize(
    ("sock", "number"),
    [
        ("/run/aapanel/blue.sock", 2),
        ("/run/aapanel/green.sock", 1),
        ("/run/a panel/blue.sock", 1),
        ("/run/aapanel/red.sock", 0),
    ],
)
def test_only_connections_of_the_slot_are_counted(tmp_path: Path, sock: str, number: int) -> None:
    (tmp_path / "unix").write_text(TABLE)
    assert count_connections(Path(sock), tmp_path / "unix") == number


def test_without_proc_net_unix_there_are_no_connections(tmp_path: Path) -> None:
    assert count_connections(Path("/run/s"), tmp_path / "none") == 0


def test_real_connections_are_counted_while_they_are_open(tmp_path: Path) -> None:
    path, link = tmp_path / "s", tmp_path / "live"
    link.symlink_to(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert count_connections(path) == 0
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(str(link))  # as nginx does, through the live link
            second.connect(str(path))
            assert count_connections(path) == 0, "nobody accepted them yet"
            served = [server.accept()[0], server.accept()[0]]
            assert count_connections(path) == 2
            served.pop().close()
            assert count_connections(path) == 1
            served.pop().close()
        assert count_connections(path) == 0
