# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.observe import Slot, TrafficError, observe

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
    (host / "etc" / f"{slot}.env").write_text(f'# Slot\n# fingerprint: {PRINT}\nPORT="1"\n')


def test_an_empty_host_has_nothing_live_and_starts_with_blue(tmp_path: Path) -> None:
    traffic = observe(tmp_path / "opt", tmp_path / "etc")
    assert traffic.live is None
    assert traffic.idle == "blue"
    assert traffic.slots["blue"] == Slot(release=None, fingerprint=None, listening=False)


def test_the_link_says_which_slot_is_live(host: Path, listener: Path) -> None:
    fill(host, "blue", "1.0-abc", listener)
    (host / "live").symlink_to("slots/blue")
    traffic = observe(host, host / "etc")
    assert (traffic.live, traffic.idle) == ("blue", "green")
    assert traffic.slots["blue"] == Slot(release="1.0-abc", fingerprint=PRINT, listening=True)
    assert traffic.slots["green"].listening is False


def test_a_socket_that_nobody_listens_on_is_told_apart(host: Path) -> None:
    dead = host / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    fill(host, "green", "1.1-def", dead)
    (host / "live").symlink_to("slots/green")
    traffic = observe(host, host / "etc")
    assert traffic.live == "green"
    assert traffic.slots["green"].listening is False


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.0.0.7"])
def test_a_slot_without_nginx_is_asked_where_it_listens(host: Path, address: str) -> None:
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        (host / "etc" / "blue.env").write_text(f'HOST="{address}"\nPORT="{server.getsockname()[1]}"\n')
        assert observe(host, host / "etc").slots["blue"].listening is True
    assert observe(host, host / "etc").slots["blue"].listening is False


@pytest.mark.parametrize("target", ["slots/red", "/etc/passwd", "releases/1.0", "blue"])
def test_a_live_link_to_something_else_is_refused(host: Path, target: str) -> None:
    (host / "live").symlink_to(target)
    with pytest.raises(TrafficError, match="not a slot"):
        observe(host, host / "etc")


def test_something_else_than_a_link_is_refused(host: Path) -> None:
    (host / "live").mkdir()
    with pytest.raises(TrafficError, match="not a symlink"):
        observe(host, host / "etc")


def test_the_digest_of_the_service_changes_with_it(host: Path) -> None:
    unit = host / "aapanel@.service"
    assert observe(host, host / "etc", unit).service_digest is None
    unit.write_text("[Service]\n")
    before = observe(host, host / "etc", unit).service_digest
    unit.write_text("[Service]\nNice=5\n")
    assert before is not None
    assert observe(host, host / "etc", unit).service_digest not in {None, before}
