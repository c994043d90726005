# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Python interpreters, uv, and package requirements."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .command import Runner
from .errors import ReleaseError

_PROBE = (
    "import json, os, sys; "
    "print(json.dumps({'version': '.'.join(map(str, sys.version_info[:3])), 'implementation': sys.implementation.name, "
    "'executable': os.path.realpath(getattr(sys, '_base_executable', sys.executable))}))"
)
_MIN_PYTHON = (3, 8)
# PEP 508: a name, extras, then versions up to a marker, a hash or a comment.
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?P<versions>[^;#\s][^;#]*)?")
_INCLUDE = re.compile(r"^(?:-r|--requirement)[\s=]*(?P<path>\S.*)$")
_CLAUSE = re.compile(r"^(?P<operator>===|==|~=|!=|<=|>=|<|>)\s*v?(?P<version>\d+(?:\.\d+)*)(?P<any>\.\*)?$")
_PLAIN_VERSION = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter of this host.

    :param executable: the resolved path, not that of a virtualenv or of a version manager's shim.
    """

    executable: str
    implementation: str
    version: str

    @property
    def key(self) -> str:
        """Return what a virtualenv depends on; a new patch version in the same place does not change it."""
        minor = ".".join(self.version.split(".")[:2])
        return f"{self.implementation}\0{minor}\0{self.executable}"


def find_python(wanted: str, runner: Runner) -> Interpreter:
    """Find a Python interpreter and determine its version.

    :raises ReleaseError: it is missing, does not run, or is too old.
    """
    found = shutil.which(wanted, path=runner.environment.get("PATH"))
    if not found:
        raise ReleaseError(f"python: {wanted} does not exist on this host; install it or set another interpreter.")
    try:
        answer = json.loads(runner.run([found, "-I", "-c", _PROBE])[-1])
    except (ValueError, IndexError) as exc:
        raise ReleaseError(f"python: {found} is not a Python interpreter; set another one.") from exc
    result = Interpreter(answer["executable"], answer["implementation"], answer["version"])
    if tuple(int(part) for part in result.version.split(".")[:2]) < _MIN_PYTHON:
        raise ReleaseError(f"python: {found} is Python {result.version}, but uv needs 3.8 or newer; set another one.")
    return result


def find_uv(wanted: str, base_dir: Path, path: str | None) -> str:
    """Return the path of uv: the given one, or that in the base directory's tools, or the first on the PATH.

    :raises ReleaseError: uv is missing.
    """
    own = base_dir / "tools" / "bin" / "uv"
    found = shutil.which(wanted or own, path=path) or (None if wanted else shutil.which("uv", path=path))
    if not found:
        raise ReleaseError(f"uv: {wanted or own} does not exist; install uv there (`pip install uv`) or set its path.")
    return os.fspath(found)


def check_specifiers(values: Sequence[str], option: str) -> None:
    """Refuse invalid requirements, which uv would parse as options of the requirements file.

    :raises ReleaseError: a value is invalid.
    """
    for value in values:
        # The path of a wheel, relative or absolute, is a valid requirement.
        if "\n" in value or "\r" in value or not re.match(r"[A-Za-z0-9./]", value):
            raise ReleaseError(f"{option}: {value!r} is not a requirement; write it like gunicorn==23.0.0.")
        if option == "overrides" and not _REQUIREMENT.match(value):
            raise ReleaseError(f"{option}: {value!r} must begin with a package name; write it like gunicorn==23.0.0.")


def canonical(name: str) -> str:
    """Return a package name in its normalized form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted_versions(requirements: Path) -> dict[str, str]:
    """Return the version specifiers of a requirements file by canonical name, including those of included files.

    Skips lines without a named requirement (options, paths, URLs).
    """
    return dict(_wanted(requirements, set()))


def _wanted(path: Path, seen: set[Path]) -> Iterator[tuple[str, str]]:
    if path in seen:
        return
    seen.add(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return
    for raw in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = raw.strip()
        include = _INCLUDE.match(line)
        if include:
            yield from _wanted((path.parent / include["path"].strip()).resolve(), seen)
            continue
        match = (
            _REQUIREMENT.match(re.split(r"\s--hash|\s#", line)[0])
            if not line.startswith(("-", "#", ".", "/"))
            else None
        )
        if match and "://" not in (match["versions"] or "") and not (match["versions"] or "").startswith("/"):
            yield canonical(match["name"]), re.sub(r"\s+", "", match["versions"] or "").strip("()")


def installed_versions(venv: Path) -> dict[str, str]:
    """Return the versions of the packages in a virtualenv by canonical name."""
    found = {}
    for info in venv.glob("lib/python*/site-packages/*.dist-info"):
        name, _dash, version = info.name.removesuffix(".dist-info").partition("-")
        found[canonical(name)] = version
    return found


def overridden(
    wanted: Mapping[str, str], installed: Mapping[str, str], overrides: Sequence[str]
) -> list[dict[str, str]]:
    """Return the overrides whose installed version does not satisfy the app's own requirement."""
    found = []
    for value in overrides:
        match = _REQUIREMENT.match(value)
        name = canonical(match["name"]) if match else ""
        if name in wanted and name in installed and not satisfies(installed[name], wanted[name]):
            found.append({"name": name, "app_wanted": wanted[name], "installed": installed[name]})
    return sorted(found, key=lambda item: item["name"])


def satisfies(version: str, specifier: str) -> bool:
    """Return whether a version satisfies a specifier such as ``>=20,<23`` (PEP 440).

    Supports plain versions (digits and dots). Others satisfy a specifier only if their texts are equal, because an
    unnecessary warning is better than a missing one.
    """
    if not specifier:
        return True
    for clause in specifier.split(","):
        match = _CLAUSE.match(clause.strip())
        if match is None or not _PLAIN_VERSION.fullmatch(version):
            if clause.strip().lstrip("=") != version:
                return False
        elif not _meets(_numbers(version), match["operator"], match["version"], bool(match["any"])):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _meets(have: tuple[int, ...], operator: str, text: str, is_prefix: bool) -> bool:
    want = _numbers(text)
    if is_prefix or operator == "~=":
        # Keep trailing zeros: `==20.0.*` is narrower than `==20.*`.
        parts = tuple(int(part) for part in text.split("."))
        prefix = parts if is_prefix else parts[:-1]
        same = (have + (0,) * len(prefix))[: len(prefix)] == prefix
        if operator == "~=":
            return same and have >= want
        return same is (operator != "!=")
    compare: dict[str, Callable[[], bool]] = {
        "==": lambda: have == want,
        "===": lambda: have == want,
        "!=": lambda: have != want,
        "<": lambda: have < want,
        "<=": lambda: have <= want,
        ">": lambda: have > want,
        ">=": lambda: have >= want,
    }
    return compare[operator]()
