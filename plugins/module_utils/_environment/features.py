# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide which features a host can have, from one table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Accepted texts of a choice. YAML users write booleans, ``-e nginx=false`` passes text.
_BOOLEAN_WORDS = {
    "auto": "auto",
    "true": "true",
    "yes": "true",
    "on": "true",
    "false": "false",
    "no": "false",
    "off": "false",
}


@dataclass(frozen=True)
class Feature:
    """A feature and its needs.

    Each mapping has a need as its key, and as its value the rest of the sentence "needs <need> …".

    :param capabilities: needed capabilities.
    :param features: needed features; only rows above this one.
    :param values: preferred value and fallback value. The feature takes the fallback value if its needs are not met,
        and is off only if the needs of the fallback value are not met either.
    :param otherwise: capabilities that the fallback value needs.
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
    "cron": "a running cron daemon",
    "apt": "apt",
    "netfilter": "the right to manage netfilter",
    "docker": "a running Docker engine",
    "persistent_home": "a persistent home folder",
    "user_namespaces": "user namespaces",
}


@dataclass(frozen=True)
class Decision:
    """Decision for one feature.

    :param reason: empty if the feature is on with its preferred value.
    """

    enabled: bool
    reason: str = ""
    value: str | None = None

    def as_dict(self) -> dict[str, bool | str]:
        """Return the decision as a module result, with ``value`` only if the feature has values."""
        result: dict[str, bool | str] = {"enabled": self.enabled, "reason": self.reason}
        if self.value is not None:
            result["value"] = self.value
        return result


def decide(
    capabilities: Mapping[str, bool],
    requested: Mapping[str, object] | None = None,
    table: tuple[Feature, ...] = FEATURES,
    variable: str = "features",
) -> tuple[dict[str, Decision], list[str]]:
    """Decide every feature from the host's capabilities and the user's choices.

    Never raises, so that all problems are reported together.

    :param requested: choices by feature: ``auto`` (default), true or false, or for a feature with values one of them.
    :param variable: the name of ``requested`` in the problems.
    :returns: the decisions by feature, and the problems: choices that are invalid or impossible on this host.
    """
    requested = requested or {}
    known = {row.name for row in table}
    problems = [f"{variable}.{_unknown_feature(name, table)}" for name in requested if name not in known]
    decisions: dict[str, Decision] = {}
    for row in table:
        raw = requested.get(row.name)
        choice = _normalize(raw, row)
        if choice is None:
            allowed = ", ".join(("auto", *(row.values or ("true", "false"))))
            problems.append(f"{variable}.{row.name}: invalid value {raw!r}; valid values: {allowed}")
            choice = "auto"
        missing = _missing(row, capabilities, decisions)
        fallback_missing = _describe_missing(row.otherwise, capabilities)
        decisions[row.name] = _decide_row(row, choice, missing, fallback_missing)
        best, other = row.values or ("true", "")
        if lacking := {best: missing, other: fallback_missing}.get(choice):
            problems.append(
                f"{variable}.{row.name} is {choice}, which is impossible on this host: {lacking}; "
                f"set it to auto, or provide what is missing"
            )
    return decisions, problems


def _decide_row(row: Feature, choice: str, missing: str, fallback_missing: str) -> Decision:
    if row.values is not None:
        best, other = row.values
        if choice != other and not missing:
            return Decision(True, "", best)
        if fallback_missing:
            return Decision(
                False,
                fallback_missing
                if choice == other
                else f"{missing}, or else {fallback_missing.removeprefix('needs ')}",
            )
        return Decision(True, "chosen by request" if choice == other else f"not {best}: {missing}", other)
    if choice == "false":
        return Decision(False, "switched off by request")
    return Decision(not missing, missing)


def _missing(row: Feature, capabilities: Mapping[str, bool], decisions: Mapping[str, Decision]) -> str:
    off = [f"{name} (off) {why}" for name, why in row.features.items() if not decisions[name].enabled]
    return _describe_missing(row.capabilities, capabilities, off)


def _describe_missing(needs: Mapping[str, str], capabilities: Mapping[str, bool], more: Sequence[str] = ()) -> str:
    parts = [f"{_LABELS[name]} {why}" for name, why in needs.items() if not capabilities.get(name, False)]
    return f"needs {' and '.join([*parts, *more])}" if parts or more else ""


def _normalize(raw: object, row: Feature) -> str | None:
    """Return the choice in its canonical form, or None if it is invalid."""
    if raw is None:
        return "auto"
    word = str(raw).strip().lower()
    if row.values is not None:
        return word if word in (*row.values, "auto") else None
    return _BOOLEAN_WORDS.get(word)


def _unknown_feature(name: str, table: tuple[Feature, ...]) -> str:
    known = [row.name for row in table]
    close = difflib.get_close_matches(str(name), known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"valid names: {', '.join(known)}"
    return f"{name}: unknown feature; {remedy}"
