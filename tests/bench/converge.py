# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the duration of site.yml on a Debian 13 host over SSH: on an empty host, and without changes.

For comparison, measures a playbook of 100 tasks that change nothing, on the same host: the cost of Ansible itself. Then
repeats both with the Mitogen strategy, if requirements/mitogen.txt is installed.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from lab_host import ROOT, Run, play, print_goals, remove, serves, start_host, write_inventory

HOST = "bench-converge"
BARE_TASKS = 100
GOAL_SECONDS = 45.0  # a run of site.yml that changes nothing
GOAL_MITOGEN = 3.0  # times as fast


def write_noop_playbook(scratch: Path) -> Path:
    playbook = scratch / "bare.yml"
    task = "    - ansible.builtin.file: {path: /etc/hostname, state: file}\n"
    playbook.write_text("- hosts: panel\n  gather_facts: false\n  tasks:\n" + task * BARE_TASKS)
    return playbook


def mitogen_strategies() -> Path | None:
    """Return the folder of Mitogen's strategies; None if it is not installed."""
    spec = importlib.util.find_spec("ansible_mitogen")
    return Path(spec.origin).parent / "plugins/strategy" if spec and spec.origin else None


def print_figure(what: str, run: Run, note: str) -> None:
    print(f"{what:28} {run.seconds:6.1f} s  {note}", flush=True)


def measure(scratch: Path) -> int:
    address = start_host(HOST, scratch)
    inventory = write_inventory(HOST, address, scratch)
    site, bare = ROOT / "playbooks/site.yml", write_noop_playbook(scratch)
    first = play(site, inventory)
    if not serves(address):
        sys.exit(f"site.yml succeeded, but http://{address}/health/ready is not ready: see the journal of {HOST}")
    print_figure("site.yml, empty host", first, f"{first.tasks} tasks, {first.changed} changed")
    again = play(site, inventory)
    print_figure("site.yml, no changes", again, f"{again.tasks} tasks, {again.changed} changed")
    hundred = play(bare, inventory)
    print_figure(
        f"{BARE_TASKS} bare no-op tasks", hundred, f"site.yml takes {again.seconds / hundred.seconds:.2f} times that"
    )
    met = {f"no changes in under {GOAL_SECONDS:.0f} s": again.changed == 0 and again.seconds < GOAL_SECONDS}
    if strategies := mitogen_strategies():
        fast = play(site, inventory, strategies)
        times = again.seconds / fast.seconds
        print_figure("site.yml with Mitogen", fast, f"{times:.1f} times as fast, {fast.changed} changed")
        fast_hundred = play(bare, inventory, strategies)
        print_figure(
            f"{BARE_TASKS} bare tasks with Mitogen",
            fast_hundred,
            f"{hundred.seconds / fast_hundred.seconds:.1f} times as fast",
        )
        met[f"Mitogen at least {GOAL_MITOGEN:.0f} times as fast"] = times >= GOAL_MITOGEN
    return print_goals(met)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return measure(Path(scratch))
        finally:
            remove(HOST)


if __name__ == "__main__":
    sys.exit(main())
