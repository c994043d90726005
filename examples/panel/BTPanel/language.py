# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations of the pages, in the language that BTPanel/languages/settings.json selects."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from panel_store import paths

_FOLDER = Path(__file__).parent / "languages"


@functools.lru_cache
def available() -> tuple[str, ...]:
    """Return the languages that this release has translations for."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("??.json")))


@functools.lru_cache
def _words(name: str) -> dict[str, str]:
    words: dict[str, str] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return words


def current() -> str:
    """Return the selected language; English if the settings are missing, invalid, or select an unknown language."""
    try:
        name = json.loads(paths.LANGUAGE.read_text(encoding="utf-8"))["default"]
    except (OSError, ValueError, KeyError, TypeError):
        return "en"
    return str(name) if name in available() else "en"


def translate(key: str) -> str:
    """Return the translation of `key`."""
    return _words(current())[key]


def save(name: str) -> None:
    """Write the settings atomically. If the path is a symlink to shared data, its target is replaced."""
    target = Path(os.path.realpath(paths.LANGUAGE))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"default": name}) + "\n", encoding="utf-8")
    temporary.replace(target)
