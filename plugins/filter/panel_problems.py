# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ansible_collections.aapanel.pipeline.plugins.module_utils._preflight.variables import find_problems


class _LazyMapping(Mapping[str, object]):
    """Mapping from names to values that reads each value only on access, because reading may raise."""

    def __init__(self, names: Sequence[str], values: Sequence[object]) -> None:
        self._positions = {name: position for position, name in enumerate(names)}
        self._values = values

    def __getitem__(self, name: str) -> object:
        return self._values[self._positions[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)


def panel_problems(
    variables: Mapping[str, object] | Sequence[str],
    specs: Mapping[str, Mapping[str, object]],
    values: Sequence[object] = (),
    required: Iterable[str] = (),
    where: str = "inventories/prod/group_vars",
) -> list[str]:
    """Return the problems of the variables; see ``panel_problems.yml`` beside this file."""
    known = variables if isinstance(variables, Mapping) else _LazyMapping(variables, values)
    return find_problems(known, specs, list(required), where)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters of this file by name."""
        return {"panel_problems": panel_problems}
