# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

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
_OLDEST_PYTHON = (3, 8)
# PEP 508: a name, extras, then versions up to a marker, a hash or a comment.
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?P<versions>[^;#\s][^;#]*)?")
_INCLUDE = re.compile(r"^(?:-r|--requirement)[\s=]*(?P<path>\S.*)$")
_CLAUSE = re.compile(r"^(?P<operator>===|==|~=|!=|<=|>=|<|>)\s*v?(?P<version>\d+(?:\.\d+)*)(?P<any>\.\*)?$")
_PLAIN_VERSION = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class Interpreter:
    """A Python of this host.

    :param executable: the real one, not a virtualenv's or a version manager's stand-in.
    """

    executable: str
    implementation: str
    version: str

    @property
    def key(self) -> str:
        """Return what a virtualenv depends on: a patch release installed in place does not matter to it."""
        minor = ".".join(self.version.split(".")[:2])
        return f"{self.implementation}\0{minor}\0{self.executable}"


def find_python(wanted: str, runner: Runner) -> Interpreter:
    """Find an interpreter and ask it what it is.

    :raises ReleaseError: it is missing, does not run, or is too old.
    """
    found = shutil.which(wanted, path=runner.environment.get("PATH"))
    if not found:
        raise ReleaseError(f"python: there is no {wanted} on this host; install it or name another interpreter.")
    try:
        answer = json.loads(runner.run([found, "-I", "-c", _PROBE])[-1])
    except (ValueError, IndexError) as exc:
        raise ReleaseError(f"python: {found} does not answer as a Python interpreter.") from exc
    result = Interpreter(answer["executable"], answer["implementation"], answer["version"])
    if tuple(int(part) for part in result.version.split(".")[:2]) < _OLDEST_PYTHON:
        raise ReleaseError(f"python: {found} is Python {result.version}; 3.8 is the oldest that uv can work with.")
    return result


def find_uv(wanted: str, base_dir: Path, path: str | None) -> str:
    """Find uv: as named, or in the tools of the base directory, or on the PATH.

    :raises ReleaseError: there is none.
    """
    own = base_dir / "tools" / "bin" / "uv"
    found = shutil.which(wanted or own, path=path) or (None if wanted else shutil.which("uv", path=path))
    if not found:
        raise ReleaseError(
            f"uv: there is none at {wanted or own}; install it there (`pip install uv`) or name its path."
        )
    return os.fspath(found)


def check_specifiers(values: Sequence[str], option: str) -> None:
    """Refuse what is no requirement: it would be read as an option of the requirements file.

    :raises ReleaseError: names the value.
    """
    for value in values:
        # A relative or absolute path of a wheel is a requirement too.
        if "\n" in value or "\r" in value or not re.match(r"[A-Za-z0-9./]", value):
            raise ReleaseError(f"{option}: {value!r} is no requirement such as gunicorn==23.0.0.")
        if option == "overrides" and not _REQUIREMENT.match(value):
            raise ReleaseError(f"{option}: {value!r} must begin with a package's name, such as gunicorn==23.0.0.")


def canonical(name: str) -> str:
    """Return a package's name in the one form that compares (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted_versions(requirements: Path) -> dict[str, str]:
    """Return what a requirements file asks for: canonical names and version specifiers, included files as well.

    Lines that are no named requirement (options, paths, URLs) are left out.
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
    """Return the packages in a virtualenv: canonical names and versions."""
    found = {}
    for info in venv.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        found[canonical(name)] = version
    return found


def overridden(
    wanted: Mapping[str, str], installed: Mapping[str, str], overrides: Sequence[str]
) -> list[dict[str, str]]:
    """Return the overrides that beat what the app asks for: those whose installed version it would have refused."""
    found = []
    for value in overrides:
        match = _REQUIREMENT.match(value)
        name = canonical(match["name"]) if match else ""
        if name in wanted and name in installed and not satisfies(installed[name], wanted[name]):
            found.append({"name": name, "app_wanted": wanted[name], "installed": installed[name]})
    return sorted(found, key=lambda item: item["name"])


def satisfies(version: str, specifier: str) -> bool:
    """Tell whether a version meets a specifier such as ``>=20,<23`` (PEP 440).

    Only plain versions (digits and dots) are understood; anything else counts as not met, unless it is equal to
    the letter: a notice too many is better than one too few.
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
        # The parts as written, trailing zeros included: `==20.0.*` is narrower than `==20.*`.
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
