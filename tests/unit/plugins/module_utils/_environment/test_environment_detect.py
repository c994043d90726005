# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detection on recorded file trees: ``recorded/<name>.json`` contains a machine and its expected results."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.detect import (
    CAPABILITIES,
    KINDS,
    Overrides,
    describe,
    detect,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import (
    DetectionError,
    Host,
    docker_engine_answers,
)

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))


V2 = "/sys/fs/cgroup/"


def v1_cpu(quota: str) -> dict[str, str]:
    return {V2 + "cpu/cpu.cfs_quota_us": quota + "\n", V2 + "cpu/cpu.cfs_period_us": "100000\n"}


def build(tree: Path, record: dict) -> Host:
    for folder in record.get("dirs", []):
        (tree / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path, content in record["files"].items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return Host(tree, record["env"], engine_answers=lambda path: False)


def load(name: str) -> dict:
    return json.loads((Path(__file__).parent / "recorded" / f"{name}.json").read_text())


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_machine(path: Path, tmp_path: Path) -> None:
    record = json.loads(path.read_text())
    expect = record["expect"]
    result = describe(build(tmp_path, record), Overrides(), {})
    evidence = expect.pop("evidence", None)
    assert {name: result[name] for name in expect} == expect
    if evidence:
        assert evidence in result["evidence"]
    assert result["overridden"] is False
    assert result["problems"] == []
    # Every verdict has evidence for exactly one value.
    verdicts = dict(entry["verdict"].split("=", 1) for entry in result["evidence"])
    assert verdicts["kind"] == result["kind"]
    assert verdicts.get("provider") == result["provider"]
    assert {name: verdicts[name] == "true" for name in CAPABILITIES} == result["capabilities"]


def test_every_supported_machine_is_recorded() -> None:
    supported = {
        "replit_workspace", "replit_deployment", "digitalocean", "hetzner", "ovh", "linode", "vultr", "ec2_nitro",
        "ec2_xen", "gce", "azure", "docker", "podman", "lxc", "wsl", "github_actions", "bare_metal", "docker_systemd",
    }  # fmt: skip
    assert supported <= {path.stem for path in RECORDED}


def test_evidence_contains_no_private_values(tmp_path: Path) -> None:
    record = load("replit_workspace")
    record["env"].update(REPL_OWNER="ada-lovelace", REPL_ID="1234-5678", DATABASE_URL="postgresql://u:hunter2@db/x")
    record["files"]["/etc/hostname"] = "secret-name\n"
    text = json.dumps(describe(build(tmp_path, record), Overrides(), {}))
    for secret in ("ada-lovelace", "1234-5678", "hunter2", "secret-name"):
        assert secret not in text


@pytest.mark.parametrize("kind", KINDS)
def test_kind_can_be_overridden(kind: str, tmp_path: Path) -> None:
    found = detect(build(tmp_path, load("hetzner")), Overrides(kind=kind))
    assert (found.kind, found.overridden) == (kind, True)
    assert found.evidence[1].source == "argument kind"


def test_overridden_kind_has_no_flavor_of_another_kind(tmp_path: Path) -> None:
    found = detect(build(tmp_path, load("docker")), Overrides(kind="vps"))
    assert (found.kind, found.flavor) == ("vps", None)


def test_variable_on_the_target_overrides_the_kind_and_the_argument_wins(tmp_path: Path) -> None:
    record = load("docker")
    record["env"]["AAPANEL_ENVIRONMENT_KIND"] = "vps"
    host = build(tmp_path, record)
    assert detect(host).kind == "vps"
    assert detect(host).overridden
    assert detect(host, Overrides(kind="ci")).kind == "ci"


def test_empty_variable_is_no_override(tmp_path: Path) -> None:
    record = load("docker")
    record["env"]["AAPANEL_ENVIRONMENT_KIND"] = ""
    assert detect(build(tmp_path, record)).kind == "container"


@pytest.mark.parametrize(
    ("overrides", "env", "message"),
    [
        (Overrides(kind="VPS"), {}, r"argument kind: unknown kind 'VPS'; .*replit.*local"),
        (Overrides(), {"AAPANEL_ENVIRONMENT_KIND": "server"}, r"AAPANEL_ENVIRONMENT_KIND: unknown kind 'server'"),
        (Overrides(provider="Big Cloud"), {}, r"argument provider: invalid name 'Big Cloud'"),
        (Overrides(capabilities={"rooot": True}), {}, r"capabilities\.rooot: unknown capability; valid names: root"),
    ],
)
def test_invalid_override(overrides: Overrides, env: dict, message: str, tmp_path: Path) -> None:
    record = load("hetzner")
    record["env"].update(env)
    with pytest.raises(DetectionError, match=message):
        detect(build(tmp_path, record), overrides)


def test_provider_and_capabilities_can_be_overridden(tmp_path: Path) -> None:
    found = detect(
        build(tmp_path, load("hetzner")),
        Overrides(provider="scaleway", capabilities={"netfilter": False, "docker": True}),
    )
    assert found.provider == "scaleway"
    assert (found.capabilities["netfilter"], found.capabilities["docker"], found.capabilities["root"]) == (
        False,
        True,
        True,
    )
    overridden = {e.verdict: e.source for e in found.evidence if e.source.startswith("argument")}
    assert overridden == {
        "provider=scaleway": "argument provider",
        "netfilter=false": "argument capabilities",
        "docker=true": "argument capabilities",
    }
    assert "netfilter=true" not in {e.verdict for e in found.evidence}


def test_replit_deployment_is_not_persistent(tmp_path: Path) -> None:
    record = load("replit_workspace")
    record["env"]["REPLIT_DEPLOYMENT"] = "1"
    assert detect(build(tmp_path, record)).capabilities["persistent_home"] is False


@pytest.mark.parametrize(
    ("path", "has"),
    [("", True), ("/bin:/usr/bin", True), ("/nix/bin:.:usr/bin", False), ("usr/bin", True), ("/usr/bin", True)],
)
def test_crontab_is_searched_on_the_path(path: str, has: bool, tmp_path: Path) -> None:
    record = load("bare_metal")
    assert "/usr/bin/crontab" in record["files"]
    record["env"]["PATH"] = path
    assert detect(build(tmp_path, record)).capabilities["cron"] is has


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({"/proc/612/comm": "crond\n"}, True),
        ({"/proc/612/comm": "bash\n"}, False),
        ({"/proc/612/comm": "bash\n", "/run/crond.pid": "612\n"}, False),
        ({"/proc/1/comm": "", "/run/crond.pid": "612\n"}, True),
        ({"/proc/1/comm": ""}, False),
    ],
)
def test_cron_needs_a_running_daemon(files: dict[str, str], has: bool, tmp_path: Path) -> None:
    record = load("bare_metal")
    del record["files"]["/proc/612/comm"]
    record["files"] |= files
    assert detect(build(tmp_path, record)).capabilities["cron"] is has


@pytest.mark.parametrize(
    ("mounts", "kept"),
    [
        ("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /home rw - tmpfs tmpfs rw\n", False),
        ("1 0 0:1 / / rw - tmpfs tmpfs rw\n2 1 8:2 / /home rw shared:1 - xfs /dev/sdb rw\n", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /home/ad rw - tmpfs tmpfs rw\n", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /home rw - tmpfs t rw\n3 1 8:2 / /home rw - ext4 d rw\n", True),
        ("rubbish\n\n - \n1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", True),
    ],
)
def test_home_is_persistent_if_its_file_system_is(mounts: str, kept: bool, tmp_path: Path) -> None:
    record = load("bare_metal")
    record["files"]["/proc/self/mountinfo"] = mounts
    assert detect(build(tmp_path, record)).capabilities["persistent_home"] is kept


@pytest.mark.parametrize(
    ("files", "cpus", "memory_mb"),
    [
        ({"/proc/1/cgroup": "0::/\n", V2 + "cpu.max": "max 100000\n", V2 + "memory.max": "max\n"}, 2, 3920),
        ({"/proc/1/cgroup": "0::/a/b\n", V2 + "a/memory.max": "104857600\n"}, 2, 100),
        # A limit of the current session does not apply to services.
        ({"/proc/self/cgroup": "0::/user.slice\n", V2 + "user.slice/memory.max": "104857600\n"}, 2, 3920),
        ({"/proc/1/cgroup": "0::/../../x\n", V2 + "cpu.max": "150000 100000\n"}, 1, 3920),
        ({"/proc/1/cgroup": "0::/\n", V2 + "cpu.max": "20000 100000\n"}, 1, 3920),
        # In cgroup v1, a huge number means "no limit".
        ({"/proc/1/cgroup": "4:memory:/\n", V2 + "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2, 3920),
        ({"/proc/1/cgroup": "1:cpu,cpuacct:/\n", **v1_cpu("-1")}, 2, 3920),
        ({"/proc/1/cgroup": "1:cpu,cpuacct:/\n", **v1_cpu("100000")}, 1, 3920),
        ({"/sys/devices/system/cpu/online": "0\n"}, 1, 3920),
        ({"/proc/1/cgroup": "nonsense", "/proc/meminfo": "MemTotal: lots\n\n"}, 2, None),
    ],
)
def test_limits_of_the_machine(files: dict, cpus: int, memory_mb: int | None, tmp_path: Path) -> None:
    record = load("hetzner")
    record["files"].update(files)
    found = detect(build(tmp_path, record))
    assert (found.cpus, found.memory_mb) == (cpus, memory_mb)


def test_detection_survives_binary_content(tmp_path: Path) -> None:
    record = load("docker")
    record["files"].update(load("ec2_xen")["files"])
    host = build(tmp_path, record)
    for path in record["files"]:
        (tmp_path / path.lstrip("/")).write_bytes(bytes(range(256)) * 3 + b"\n\n- :\n")
    assert describe(host, Overrides(), {})["kind"] in KINDS


def test_forbidden_files_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = build(tmp_path, load("hetzner"))

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("open", "exists", "is_dir", "iterdir", "readlink"):
        monkeypatch.setattr(Path, name, refuse)
    found = detect(host)
    assert (found.kind, found.provider, found.cpus, found.memory_mb) == ("local", None, 1, None)
    assert host.names("/proc") == []
    assert host.link("/proc/self") is None


def serve_once(path: Path, answer: bytes) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def run() -> None:
        with server:
            client, _ = server.accept()
            with client:
                client.recv(256)
                client.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "answers"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 403 Forbidden\r\n\r\n", False), (b"", False)],
)
def test_engine_must_answer(answer: bytes, answers: bool, tmp_path: Path) -> None:
    path = tmp_path / "s"
    thread = serve_once(path, answer)
    assert docker_engine_answers(str(path)) is answers
    thread.join(timeout=5)


def test_engine_that_hangs_times_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(1)
        assert docker_engine_answers(str(tmp_path / "s")) is False


def test_stale_engine_socket_and_overlong_path(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert docker_engine_answers(str(tmp_path / "s")) is False
    assert docker_engine_answers("/" + "x" * 300) is False


def test_docker_host_sets_the_socket(tmp_path: Path) -> None:
    record = load("hetzner")
    record["env"]["DOCKER_HOST"] = "unix:///run/user/1000/engine.sock"
    record["files"]["/run/user/1000/engine.sock"] = ""
    build(tmp_path, record)
    asked: list[str] = []
    host = Host(tmp_path, record["env"], engine_answers=lambda path: not asked.append(path))
    assert detect(host).capabilities["docker"] is True
    assert asked == [str(tmp_path / "run/user/1000/engine.sock")]


def test_this_machine_is_detected() -> None:
    result = describe(Host(), Overrides(), {})
    assert result["kind"] in KINDS
    assert result["capabilities"]["root"] is (os.geteuid() == 0)
    assert 1 <= result["cpus"] <= (os.cpu_count() or 1)
