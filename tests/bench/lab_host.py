# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of the benchmarks: a Debian host in the lab with SSH, playbook runs, and goals."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "panel.test"
RUN = ["--cgroupns=host", "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--cap-drop=SYS_MODULE", "--cap-drop=SYS_TIME"]
RUN += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--tmpfs=/run", "--tmpfs=/run/lock"]
RUN += ["--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]


@dataclass(frozen=True)
class Run:
    """One run of a playbook."""

    seconds: float
    tasks: int
    changed: int


def docker(*arguments: str) -> str:
    """Run a docker command; returns its output, or exits with its error output."""
    result = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"docker {' '.join(arguments[:4])} …: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout.strip()


def address_of(name: str) -> str:
    """Return the address of a container on the lab's bridge."""
    return docker("inspect", "--format", "{{ .NetworkSettings.IPAddress }}", name)


def remove(*names: str) -> None:
    """Remove containers and their volumes, if they exist."""
    subprocess.run(["docker", "rm", "--force", "--volumes", *names], check=False, capture_output=True)


def start_host(name: str, scratch: Path) -> str:
    """Start an empty host with an SSH server; returns its address."""
    docker("run", "--detach", "--name", name, "--hostname", name, *RUN, "aapanel-lab/trixie", "/lib/systemd/systemd")
    docker("exec", name, "sh", "-c", "until systemctl is-system-running --wait; do sleep 0.2; done")
    docker("exec", name, "sh", "-c", "apt-get -qq update && apt-get -qq install --yes openssh-server >/dev/null")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / "key")], check=True)
    docker("exec", name, "mkdir", "--parents", "--mode=0700", "/root/.ssh")
    docker("cp", str(scratch / "key.pub"), f"{name}:/root/.ssh/authorized_keys")
    docker("exec", name, "chown", "0:0", "/root/.ssh/authorized_keys")
    # Remove the package lists, as on an empty host.
    docker("exec", name, "sh", "-c", "rm -rf /var/lib/apt/lists/*")
    return address_of(name)


def write_inventory(name: str, address: str, scratch: Path, **settings: object) -> Path:
    """Write an inventory with the host, the example panel and new secrets; `settings` are additional variables."""
    inventory = scratch / "hosts.yml"
    values: dict[str, object] = {
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(scratch / "key"),
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "ansible_python_interpreter": "/usr/bin/python3",
        "panel_domain": DOMAIN,
        "panel_source": str(ROOT / "examples/panel"),
        **{
            f"panel_{secret}": secrets.token_urlsafe(48)
            for secret in ("secret_key", "database_password", "redis_password")
        },
        **settings,
    }
    # JSON is valid YAML.
    lines = [f"      {variable}: {json.dumps(value)}" for variable, value in values.items()]
    inventory.touch(mode=0o600)
    inventory.write_text("\n".join(["panel:", "  hosts:", f"    {name}:", *lines]) + "\n")
    return inventory


def play(playbook: Path, inventory: Path, strategies: Path | None = None, **variables: object) -> Run:
    """Run a playbook, with Mitogen's strategy if its folder is given; exits with the output if it fails.

    `variables` take precedence over the inventory's, and are visible to every process of this machine.
    """
    env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "False"}
    if strategies is not None:
        env |= {"ANSIBLE_STRATEGY_PLUGINS": str(strategies), "ANSIBLE_STRATEGY": "mitogen_linear"}
    command = ["ansible-playbook", str(playbook), "--inventory", str(inventory), "--extra-vars", json.dumps(variables)]
    begin = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if result.returncode != 0:
        sys.exit(result.stdout[-6000:] + result.stderr[-2000:])
    recap = re.search(r"changed=(\d+)", result.stdout)
    return Run(seconds, len(re.findall(r"^TASK \[", result.stdout, re.MULTILINE)), int(recap[1]) if recap else -1)


def serves(address: str) -> bool:
    """Return whether the panel is ready, through nginx."""
    answer = subprocess.run(
        ["curl", "--silent", "--header", f"Host: {DOMAIN}", f"http://{address}/health/ready"],
        check=False,
        capture_output=True,
        text=True,
    )
    return '"ready"' in answer.stdout


def print_goals(goals: dict[str, bool]) -> int:
    """Print whether each goal was met; returns the exit status."""
    for goal, reached in goals.items():
        print(f"{'met   ' if reached else 'MISSED'} {goal}")
    return 0 if all(goals.values()) else 1
