# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: The ways a wish can be written; YAML users write booleans, ``-e nginx=false`` arrives as text.
_WORDS = {"auto": "auto", "true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


@dataclass(frozen=True)
class Feature:
    """One row: a feature, and what each of its needs is good for.

    ``capabilities`` and ``features`` map a need to the rest of the sentence "needs <need> …". ``features`` may only
    name rows above this one. A feature with ``values`` takes the first value when its needs are met and the second one
    otherwise; it is off only where ``otherwise``, what the second one needs, is not met either.
    """

    name: str
    capabilities: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    values: tuple[str, str] | None = None
    otherwise: Mapping[str, str] = field(default_factory=dict)


FEATURES: tuple[Feature, ...] = (
    Feature(
        "service",
        capabilities={"root": "to write its unit", "systemd": "to run it and start it at boot"},
        values=("systemd", "supervisor"),
    ),
    Feature("system_packages", capabilities={"root": "to install them", "apt": "to fetch them"}),
    Feature("system_user", capabilities={"root": "to create it"}),
    Feature(
        "nginx",
        capabilities={
            "root": "to bind port 80 and write /etc/nginx",
            "apt": "to install it",
            "systemd": "to keep it running",
        },
    ),
    Feature(
        "database_server",
        capabilities={"root": "to set it up", "apt": "to install it", "systemd": "to keep it running"},
    ),
    Feature(
        "redis",
        capabilities={"root": "to set it up", "apt": "to install it", "systemd": "to keep it running"},
    ),
    Feature(
        "app_home",
        capabilities={"root": "to mount", "systemd": "to give each slot its own view (BindPaths=)"},
    ),
    Feature(
        "two_colours",
        capabilities={"systemd": "to run two slots side by side"},
        features={"nginx": "to switch between them"},
    ),
    Feature(
        "schedule",
        capabilities={"root": "to write its timers", "systemd": "to keep the time"},
        values=("systemd", "cron"),
        otherwise={"cron": "to keep the time"},
    ),
)

_LABELS = {
    "root": "root (become)",
    "systemd": "systemd as pid 1",
    "cron": "a cron that runs",
    "apt": "apt",
    "netfilter": "the right to manage netfilter",
    "docker": "a Docker engine that answers",
    "persistent_home": "a home folder that lasts",
    "user_namespaces": "user namespaces",
}


@dataclass(frozen=True)
class Decision:
    """What was decided for one feature; ``reason`` is empty when it is on at its best."""

    enabled: bool
    reason: str = ""
    value: str | None = None

    def as_dict(self) -> dict[str, bool | str]:
        """For a module's result: ``value`` only where the feature has one."""
        result: dict[str, bool | str] = {"enabled": self.enabled, "reason": self.reason}
        if self.value is not None:
            result["value"] = self.value
        return result


def decide(
    capabilities: Mapping[str, bool],
    wishes: Mapping[str, object] | None = None,
    table: tuple[Feature, ...] = FEATURES,
    variable: str = "features",
) -> tuple[dict[str, Decision], list[str]]:
    """Decides every feature of *table* from what the host can do and what the user wishes.

    A wish is ``auto`` (default), true, false, or, for a feature with values, one of those. Returns the
    decisions by name and the problems: wishes that make no sense or that this host cannot fulfil; they call the
    wishes by the name *variable*. Never raises, so that every problem is found in one go.
    """
    wishes = wishes or {}
    problems = [f"{variable}.{_unknown(name, table)}" for name in wishes if name not in {row.name for row in table}]
    decisions: dict[str, Decision] = {}
    for row in table:
        raw = wishes.get(row.name)
        wish = _wish(raw, row)
        if wish is None:
            allowed = "auto, true or false" if row.values is None else f"auto, {' or '.join(row.values)}"
            problems.append(f"{variable}.{row.name} is {raw!r}; it has to be {allowed}")
            wish = "auto"
        missing = _missing(row, capabilities, decisions)
        worse = _say_missing(row.otherwise, capabilities)
        decisions[row.name] = _decide_row(row, wish, missing, worse)
        best, other = row.values or ("true", "")
        if lacking := {best: missing, other: worse}.get(wish):
            problems.append(
                f"{variable}.{row.name} is {wish}, but this host cannot have it: {lacking}; "
                f"set it to auto, or provide what is missing"
            )
    return decisions, problems


def _decide_row(row: Feature, wish: str, missing: str, worse: str) -> Decision:
    if row.values is not None:
        best, other = row.values
        if wish != other and not missing:
            return Decision(True, "", best)
        if worse:
            return Decision(False, worse if wish == other else f"{missing}, or else {worse.removeprefix('needs ')}")
        return Decision(True, "chosen by request" if wish == other else f"not {best}: {missing}", other)
    if wish == "false":
        return Decision(False, "switched off by request")
    return Decision(not missing, missing)


def _missing(row: Feature, capabilities: Mapping[str, bool], decisions: Mapping[str, Decision]) -> str:
    off = [f"{name} (off) {why}" for name, why in row.features.items() if not decisions[name].enabled]
    return _say_missing(row.capabilities, capabilities, off)


def _say_missing(needs: Mapping[str, str], capabilities: Mapping[str, bool], more: Sequence[str] = ()) -> str:
    parts = [f"{_LABELS[name]} {why}" for name, why in needs.items() if not capabilities.get(name, False)]
    return f"needs {' and '.join([*parts, *more])}" if parts or more else ""


def _wish(raw: object, row: Feature) -> str | None:
    """The wish in its canonical form, or None when it cannot be understood."""
    if raw is None:
        return "auto"
    word = str(raw).strip().lower()
    if row.values is not None:
        return word if word in (*row.values, "auto") else None
    return _WORDS.get(word)


def _unknown(name: str, table: tuple[Feature, ...]) -> str:
    known = [row.name for row in table]
    close = difflib.get_close_matches(str(name), known, n=1)
    cure = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{name}: unknown feature; {cure}"
