# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate typical data of a panel from a seed: dumps, logs, code, a database, and incompressible uploads."""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

SEED = "aapanel.pipeline"
USUAL = 443  # megabytes; other sizes have a proportional number of files
DATABASE, DATABASE_SHARE = "panel.db", 0.1
_PER_FOLDER = 40  # files
_LARGE = 4_000_000  # bytes; a change replaces a part of a large file, and all of a small one
_SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "is", "ol", "um")]
# Zipf's law, as in natural language: the second word is half as frequent as the first, and so on.
_WEIGHTS = list(itertools.accumulate(1 / rank for rank in range(1, 6001)))

#: Returns a line of a file by its number.
Line = Callable[[int], str]

_LICENCE = """\
# This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
# License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
# version. It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY.

from __future__ import annotations

import logging
from dataclasses import dataclass, field

"""
_ALWAYS = (
    "        except (OSError, ValueError) as error:\n            raise PanelError(str(error)) from error\n",
    "        with self._lock:\n            return dict(self._values)\n\n",
    "    @property\n    @functools.cache\n",
    "        return None\n\n",
)


def _vocabulary() -> list[str]:
    rng = Random(SEED)
    return ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in _WEIGHTS]


_WORDS = _vocabulary()
_STATES = ("active", "active", "active", "suspended", "pending", "deleted")


def _words(rng: Random, count: int) -> list[str]:
    return rng.choices(_WORDS, cum_weights=_WEIGHTS, k=count)


def _text(rng: Random, count: int) -> str:
    return " ".join(_words(rng, count))


def _time(rng: Random, number: int) -> str:
    minute = number // 40
    return f"2026-11-{minute // 1440 % 28 + 1:02}T{minute // 60 % 24:02}:{minute % 60:02}:{rng.randrange(60):02}"


def _token(rng: Random) -> bytes | None:
    # Most rows have no token.
    return rng.randbytes(16) if rng.randrange(4) == 0 else None


def _sql(rng: Random) -> Line:
    def line(number: int) -> str:
        user, token = rng.choice(_WORDS), _token(rng)
        return (
            f"({number},'{user}','{user}{rng.randrange(99)}@{rng.choice(_WORDS[:50])}.example','{_time(rng, number)}',"
            f"'{rng.choice(_STATES)}','en_US','UTC',0.00,{rng.randrange(10**5)},NULL,'{_text(rng, 12)}',"
            f"{token and token.hex()!r},NULL,0,1),\n"
        )

    return line


def _log(rng: Random) -> Line:
    # A few users at a time, each with one browser on one page with its assets.
    users = [f"10.{rng.randrange(4)}.{rng.randrange(256)}.{rng.randrange(256)}" for _ in range(200)]
    browsers = [f"Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(120, 140)]
    pages = [f"/{'/'.join(_words(rng, 2))}?page={rng.randrange(50)}" for _ in range(100)]
    assets = [f"/static/{'.'.join(_words(rng, 2))}.{ending}" for ending in ("css", "js", "png", "svg") * 5]
    sessions = [(0, pages[0])] * 4

    def line(number: int) -> str:
        session = rng.randrange(len(sessions))
        user, page = sessions[session]
        wanted = rng.choice(assets)
        if rng.randrange(6) == 0:
            wanted = rng.choice(pages)
            sessions[session] = rng.randrange(200) if rng.randrange(8) == 0 else user, wanted
        method = "POST" if rng.randrange(20) == 0 else "GET"
        return (
            f'{users[user]} - - [{_time(rng, number)}] "{method} {wanted} HTTP/1.1" '
            f'{rng.choice((200, 200, 200, 304, 404))} {rng.randrange(40_000)} "https://panel.example{page}" '
            f'"{browsers[user % len(browsers)]}" {rng.random():.3f}\n'
        )

    return line


def _code(rng: Random) -> Line:
    # A module repeats its names, and a function uses few of them.
    own = [f"{first}_{second}" for first, second in zip(_words(rng, 20), _words(rng, 20), strict=True)]
    licence, local = [_LICENCE], own[:3]

    def line(_: int) -> str:
        if licence:
            return licence.pop()
        if rng.randrange(8) == 0:
            local[:] = rng.choices(own, k=len(local))
            return f"    def {local[0]}(self, {local[1]}: str, {local[2]}: int = {rng.randrange(10)}) -> None:\n"
        first, second, third = rng.choices(local, k=3)
        return rng.choice(
            (
                *_ALWAYS,
                f"        self._{first} = self.{second}({third}, timeout={rng.randrange(60)})\n",
                f"        if {first} is None or self.{second} != {rng.choice(own)!r}:\n",
                f'            raise ValueError(f"{{{first}}}: {_text(rng, 6)}")\n',
                f"        # {_text(rng, 10)}\n",
                f"        return [item.{rng.choice(own)} for item in {second}.{third}]\n\n",
            )
        )

    return line


def _lines(lines: Callable[[Random], Line]) -> Callable[[Random, int], bytes]:
    def make(rng: Random, size: int) -> bytes:
        line, length, pieces = lines(rng), 0, []
        for number in itertools.count(rng.randrange(10**6)):
            pieces.append(line(number))
            length += len(pieces[-1])
            if length >= size:
                break
        return "".join(pieces).encode("ascii")[:size]

    return make


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    :param share: share of all bytes.
    :param files: number of files at the usual size.
    :param make: generates the content of a file of the given size.
    """

    share: float
    files: int
    make: Callable[[Random, int], bytes]


KINDS = {
    "dumps": Kind(0.2, 10, _lines(_sql)),
    "logs": Kind(0.15, 90, _lines(_log)),
    "code": Kind(0.1, 5300, _lines(_code)),
    # Images, archives and encrypted files.
    "uploads": Kind(0.45, 1000, Random.randbytes),
}


def make(folder: Path, megabytes: int) -> None:
    """Generate the data below a folder."""
    total = megabytes * 1_000_000
    for name, kind in KINDS.items():
        rng = Random(f"{SEED}/{name}")
        # A few large files, many small ones.
        weights = [rng.lognormvariate(0, 1) for _ in range(max(1, round(kind.files * megabytes / USUAL)))]
        scale = kind.share * total / sum(weights)
        for number, weight in enumerate(weights):
            path = folder / name / f"{number // _PER_FOLDER:03}" / f"{number:05}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kind.make(rng, math.ceil(weight * scale)))
    _make_database(folder / DATABASE, round(DATABASE_SHARE * total))


def change(folder: Path, turn: int) -> None:
    """Change one percent of the data, different in each turn: whole small files, and a part of each large one."""
    for name, kind in KINDS.items():
        rng = Random(f"{SEED}/{name}/{turn}")
        paths = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        small = [path for path in paths if path.stat().st_size < _LARGE]
        for path in small[turn % 100 :: 100]:
            path.write_bytes(kind.make(rng, path.stat().st_size))
        for path in set(paths) - set(small):
            size = path.stat().st_size
            with path.open("r+b") as stream:
                stream.seek(rng.randrange(size - size // 100))
                stream.write(kind.make(rng, size // 100))
    _change_database(folder / DATABASE, turn)


def _make_database(path: Path, size: int) -> None:
    rng = Random(f"{SEED}/{DATABASE}")
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, at TEXT, who TEXT, what TEXT, token BLOB)")
        number = 0
        while path.stat().st_size < size:
            rows = [_row(rng, number + more) for more in range(2000)]
            database.executemany("INSERT INTO events (at, who, what, token) VALUES (?, ?, ?, ?)", rows)
            database.commit()
            number += len(rows)
    database.close()


def _change_database(path: Path, turn: int) -> None:
    rng = Random(f"{SEED}/{DATABASE}/{turn}")
    with sqlite3.connect(path) as database:
        (count,) = database.execute("SELECT count(*) FROM events").fetchone()
        part = count // 100
        rows = [(*_row(rng, number), turn % 100 * part + number + 1) for number in range(part)]
        database.executemany("UPDATE events SET at = ?, who = ?, what = ?, token = ? WHERE id = ?", rows)
    database.close()


def _row(rng: Random, number: int) -> tuple[str, str, str, bytes | None]:
    return _time(rng, number), rng.choice(_WORDS), _text(rng, 16), _token(rng)
