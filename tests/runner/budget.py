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
TOLERANCE = 2.0  # durations vary with the machine, and with the jobs that run in parallel


@dataclass(frozen=True)
class Budget:
    """The budget file.

    :param seconds: allowed durations by job; `total` is all of `make test`.
    :param covers: path patterns by scenario; a change of a matching path selects the scenario.
    :param everything: path patterns; a change of a matching path selects every scenario.
    """

    seconds: Mapping[str, float]
    covers: Mapping[str, list[str]]
    everything: list[str]

    def excess(self, name: str, seconds: float) -> str:
        """Return an error with the line to change if a job took too long or has no budget; empty otherwise."""
        budget_file = FILE.relative_to(ROOT)
        allowed = self.seconds.get(name)
        if allowed is None:
            return f"{name} has no budget in {budget_file}: add `{name}: {seconds:.0f}`"
        if seconds <= allowed * TOLERANCE:
            return ""
        return (
            f"{name} took {seconds:.0f} s, more than {TOLERANCE:g} times its budget of {allowed:g} s: make it faster, "
            f"or change `{name}: {allowed:g}` to `{name}: {seconds:.0f}` in {budget_file} and explain why"
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
    """Return the paths that changed since the merge base with `base`, including uncommitted and untracked ones.

    :raises subprocess.CalledProcessError: the revision does not exist.
    """

    def git(*arguments: str) -> list[str]:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()

    (fork,) = git("merge-base", base, "HEAD")
    return [*git("diff", "--name-only", fork), *git("ls-files", "--others", "--exclude-standard")]
