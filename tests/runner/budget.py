# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The budget file `tests/budget.yml`: how long each job may take, and which files each scenario tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from runner.jobs import ROOT

FILE = ROOT / "tests" / "budget.yml"
TOLERANCE = 2.0  # machines are noisy, and what runs beside a job takes its time, too


@dataclass(frozen=True)
class Budget:
    """The budget file.

    :param seconds: allowed duration by the name of a job; `total` is the whole of `make test`.
    :param covers: patterns of paths by the name of a scenario: a change of one asks for that scenario.
    :param everything: patterns of paths whose change asks for every scenario.
    """

    seconds: Mapping[str, float]
    covers: Mapping[str, list[str]]
    everything: list[str]

    def excess(self, name: str, seconds: float) -> str:
        """Return what to say of a job that took too long, with the line to change; empty where it did not.

        A job without a line is too long however short it is, so that each gets one.
        """
        place = FILE.relative_to(ROOT)
        allowed = self.seconds.get(name)
        if allowed is None:
            return f"{name} has no line in {place}: add `{name}: {seconds:.0f}`"
        if seconds <= allowed * TOLERANCE:
            return ""
        return (
            f"{name} took {seconds:.0f} s, more than {TOLERANCE:g} times its {allowed:g} s: make it faster, "
            f"or say in {place} why it takes that long, and change `{name}: {allowed:g}` to `{name}: {seconds:.0f}`"
        )

    def scenarios(self, changed: Iterable[str]) -> set[str]:
        """Return the scenarios that test one of the changed paths."""
        found = set()
        for path in changed:
            for scenario, patterns in self.covers.items():
                own = [f"molecule/{scenario}/*"]
                if any(fnmatch(path, pattern) for pattern in [*own, *patterns, *self.everything]):
                    found.add(scenario)
        return found


def load(file: Path = FILE) -> Budget:
    """Read the budget file."""
    text: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Budget(text["seconds"], text["covers"], text["everything"])


def changed_paths(base: str) -> list[str]:
    """Return the paths that differ from where this branch left `base`, uncommitted and untracked ones included.

    :raises subprocess.CalledProcessError: git knows no such revision.
    """

    def git(*arguments: str) -> list[str]:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()

    (fork,) = git("merge-base", base, "HEAD")
    return [*git("diff", "--name-only", fork), *git("ls-files", "--others", "--exclude-standard")]
