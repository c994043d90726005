# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long site.yml takes on a Debian 13 host over SSH: from empty to serving, and when there is nothing to do.

Beside it, in the same minutes on the same host, a bare playbook of 100 tasks that change nothing: what Ansible itself
costs here. Then both again with the Mitogen strategy, if requirements/mitogen.txt is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "bench-converge"
DOMAIN = "panel.test"
BARE_TASKS = 100
GOAL_SECONDS = 45.0  # a run of site.yml that changes nothing
GOAL_MITOGEN = 3.0  # times as fast
RUN = ["--cgroupns=host", "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--cap-drop=SYS_MODULE", "--cap-drop=SYS_TIME"]
RUN += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--tmpfs=/run", "--tmpfs=/run/lock"]
RUN += ["--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]


@dataclass(frozen=True)
class Run:
    """One run of a playbook."""

    seconds: float
    tasks: int
    changed: int


def docker(*arguments: str, **options: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, **options).stdout.strip()


def start_host(scratch: Path) -> str:
    """Start an empty host that answers SSH; return its address."""
    docker("run", "--detach", "--name", HOST, "--hostname", HOST, *RUN, "aapanel-lab/trixie", "/lib/systemd/systemd")
    docker("exec", HOST, "sh", "-c", "until systemctl is-system-running --wait; do sleep 0.2; done")
    docker("exec", HOST, "sh", "-c", "apt-get -qq update && apt-get -qq install --yes openssh-server >/dev/null")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / "key"], check=True)
    docker("exec", HOST, "mkdir", "--parents", "--mode=0700", "/root/.ssh")
    docker("cp", str(scratch / "key.pub"), f"{HOST}:/root/.ssh/authorized_keys")
    docker("exec", HOST, "chown", "0:0", "/root/.ssh/authorized_keys")
    # The lists go again: the host shall be empty.
    docker("exec", HOST, "sh", "-c", "rm -rf /var/lib/apt/lists/*")
    return docker("inspect", "--format", "{{ .NetworkSettings.IPAddress }}", HOST)


def write_inventory(scratch: Path, address: str) -> Path:
    inventory = scratch / "hosts.yml"
    values = {
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(scratch / "key"),
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "ansible_python_interpreter": "/usr/bin/python3",
        "panel_domain": DOMAIN,
        "panel_source": str(ROOT / "examples/panel"),
        **{
            f"panel_{name}": secrets.token_urlsafe(48) for name in ("secret_key", "database_password", "redis_password")
        },
    }
    lines = [f"      {name}: '{value}'" for name, value in values.items()]
    inventory.touch(mode=0o600)
    inventory.write_text("\n".join(["panel:", "  hosts:", f"    {HOST}:", *lines]) + "\n")
    return inventory


def write_bare(scratch: Path) -> Path:
    playbook = scratch / "bare.yml"
    task = "    - ansible.builtin.file: {path: /etc/hostname, state: file}\n"
    playbook.write_text("- hosts: panel\n  gather_facts: false\n  tasks:\n" + task * BARE_TASKS)
    return playbook


def mitogen_strategies() -> Path | None:
    """Where Mitogen keeps its strategies; None where it is not installed."""
    spec = importlib.util.find_spec("ansible_mitogen")
    return Path(spec.origin).parent / "plugins/strategy" if spec and spec.origin else None


def play(playbook: Path, inventory: Path, strategies: Path | None = None) -> Run:
    """Run a playbook, with Mitogen's strategy if told where it is; fail loudly with its output if it fails."""
    env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "False"}
    if strategies is not None:
        env |= {"ANSIBLE_STRATEGY_PLUGINS": str(strategies), "ANSIBLE_STRATEGY": "mitogen_linear"}
    command = ["ansible-playbook", playbook, "--inventory", inventory]
    begin = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if result.returncode != 0:
        sys.exit(result.stdout[-6000:] + result.stderr[-2000:])
    recap = re.search(r"changed=(\d+)", result.stdout)
    return Run(seconds, len(re.findall(r"^TASK \[", result.stdout, re.MULTILINE)), int(recap[1]) if recap else -1)


def serves(address: str) -> bool:
    answer = subprocess.run(
        ["curl", "--silent", "--header", f"Host: {DOMAIN}", f"http://{address}/health/ready"],
        check=False,
        capture_output=True,
        text=True,
    )
    return '"ready"' in answer.stdout


def say(what: str, run: Run, note: str) -> None:
    print(f"{what:28} {run.seconds:6.1f} s  {note}", flush=True)


def measure(scratch: Path) -> int:
    address = start_host(scratch)
    inventory = write_inventory(scratch, address)
    site, bare = ROOT / "playbooks/site.yml", write_bare(scratch)
    first = play(site, inventory)
    if not serves(address):
        sys.exit(f"site.yml ended, but http://{address}/health/ready is not ready")
    say("site.yml, empty to serving", first, f"{first.tasks} tasks, {first.changed} changed")
    again = play(site, inventory)
    say("site.yml, nothing to do", again, f"{again.tasks} tasks, {again.changed} changed")
    hundred = play(bare, inventory)
    say(f"{BARE_TASKS} bare no-op tasks", hundred, f"site.yml takes {again.seconds / hundred.seconds:.2f} times that")
    met = {f"nothing to do in under {GOAL_SECONDS:.0f} s": again.changed == 0 and again.seconds < GOAL_SECONDS}
    if strategies := mitogen_strategies():
        fast = play(site, inventory, strategies)
        times = again.seconds / fast.seconds
        say("site.yml with Mitogen", fast, f"{times:.1f} times as fast, {fast.changed} changed")
        fast_hundred = play(bare, inventory, strategies)
        say(
            f"{BARE_TASKS} bare tasks with Mitogen",
            fast_hundred,
            f"{hundred.seconds / fast_hundred.seconds:.1f} times as fast",
        )
        met[f"Mitogen at least {GOAL_MITOGEN:.0f} times as fast"] = times >= GOAL_MITOGEN
    for goal, reached in met.items():
        print(f"{'met   ' if reached else 'MISSED'} {goal}")
    return 0 if all(met.values()) else 1


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return measure(Path(scratch))
        finally:
            subprocess.run(["docker", "rm", "--force", "--volumes", HOST], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
