# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds SQL statements of PostgreSQL, MySQL and SQLite that contract the schema, by keywords instead of a grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import rules
from .rules import Additions, Contraction

_SKIPPED = re.compile(
    r"""
    (?P<text>[eEbBxX]?'(?:[^'\\]|''|\\.)*')
    | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[A-Za-z_]\w*\])
    | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$)
    | (?P<executable>/\*!\d*|\*/)
    | (?P<comment>--[^\n]*|/\*(?!!).*?\*/)
    """,
    re.VERBOSE | re.DOTALL,
)
_IDENTIFIER = re.compile(r"[A-Za-z_][\w$]*")
_KEYWORD = re.compile(
    r"ADD|ALTER|CALL|CHANGE|CHECK|CONSTRAINT|CREATE|DEFAULT|DELETE|DROP|EXECUTE|FOREIGN|FROM|INDEX|INTO|KEY|MODIFY|NOT|NULL"
    r"|ON|PRIMARY|REFERENCES|RENAME|REVOKE|SET|TABLE|THEN|TO|TRUNCATE|TYPE|UNIQUE",
    re.IGNORECASE,
)
_NAME = r"(?P<name>[\w$.]+)"
_IF_EXISTS = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"

_CREATE_TABLE = re.compile(
    rf"CREATE\s+(?P<temporary>(?:GLOBAL\s+|LOCAL\s+)?TEMP(?:ORARY)?\s+|UNLOGGED\s+)?TABLE\s+(?P<if_not_exists>IF\s+NOT\s+EXISTS\s+)?"
    rf"{_NAME}",
    re.IGNORECASE,
)
_ALTER_TABLE = re.compile(
    rf"ALTER\s+(?:FOREIGN\s+)?TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME}\s*\*?\s*(?P<actions>.*)",
    re.IGNORECASE | re.DOTALL,
)
_DROP_TABLE = re.compile(
    rf"DROP\s+(?:TEMPORARY\s+)?TABLE\s+{_IF_EXISTS}(?P<names>[\w$.]+(?:\s*,\s*[\w$.]+)*)", re.IGNORECASE
)
_DELETE = re.compile(rf"\bDELETE\s+(?:[\w$.,*]+\s+){{0,8}}?FROM\s+(?:ONLY\s+)?{_NAME}", re.IGNORECASE)
_TRUNCATE = re.compile(rf"\bTRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?{_NAME}(?!\s*\()", re.IGNORECASE)
_CREATE_INDEX = re.compile(
    r"CREATE\s+(?P<unique>UNIQUE\s+)?(?:FULLTEXT\s+|SPATIAL\s+)?INDEX\s+(?:CONCURRENTLY\s+)?"
    r"(?P<if_not_exists>IF\s+NOT\s+EXISTS\s+)?(?P<index>(?!ON\b)[\w$.]+)?\s*(?:USING\s+\w+\s+)?ON\s+(?:ONLY\s+)?"
    rf"{_NAME}",
    re.IGNORECASE,
)
_DROP_INDEX = re.compile(rf"DROP\s+INDEX\s+(?:CONCURRENTLY\s+)?{_IF_EXISTS}{_NAME}", re.IGNORECASE)

# Actions of ALTER TABLE by their first words; None is an expansion. The first match decides. No match is unknown.
_ACTIONS: tuple[tuple[re.Pattern[str], Contraction | None], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), contraction)
    for pattern, contraction in (
        (r"RENAME\s+(?:TO|AS)\b", rules.RENAME_TABLE),
        (r"RENAME\s+(?:CONSTRAINT|INDEX|KEY)\b", rules.RENAME_OTHER),
        (r"RENAME\b", rules.RENAME_COLUMN),
        (r"DROP\s+(?:CONSTRAINT|CHECK|FOREIGN\s+KEY|PRIMARY\s+KEY)\b", rules.DROP_CONSTRAINT),
        (r"DROP\s+(?:INDEX|KEY)\b", rules.DROP_INDEX),
        (r"DROP\s+PARTITION\b", rules.DELETE_ROWS),
        (r"DROP\b", rules.DROP_COLUMN),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+(?:SET\s+DATA\s+)?TYPE\b", rules.CHANGE_TYPE),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+SET\s+NOT\s+NULL\b", rules.SET_NOT_NULL),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+SET\s+DEFAULT\s+NULL\b", rules.DROP_DEFAULT),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+DROP\s+NOT\s+NULL\b", None),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+DROP\b", rules.DROP_DEFAULT),
        (r"ALTER\s+(?:COLUMN\s+)?\S+\s+SET\s+(?:DEFAULT|STATISTICS|STORAGE|COMPRESSION)\b", None),
        (r"(?:MODIFY|CHANGE)\b", rules.CHANGE_COLUMN),
        (r"ADD\s+(?:CONSTRAINT\s+(?!FOREIGN\b|CHECK\b|UNIQUE\b|PRIMARY\b)\S+\s+)?UNIQUE\b", rules.UNIQUE),
        (r"ADD\s+(?:CONSTRAINT\s+(?!FOREIGN\b|CHECK\b|UNIQUE\b|PRIMARY\b)\S+\s+)?PRIMARY\s+KEY\b", rules.PRIMARY_KEY),
        (r"ADD\s+(?:CONSTRAINT\s+(?!FOREIGN\b|CHECK\b|UNIQUE\b|PRIMARY\b)\S+\s+)?FOREIGN\s+KEY\b", rules.FOREIGN_KEY),
        (r"ADD\s+CONSTRAINT\b", rules.CHECK),
        (r"ADD\s+(?:CHECK|EXCLUDE)\b", rules.CHECK),
        (r"ADD\s+(?:FULLTEXT\s+|SPATIAL\s+)?(?:INDEX|KEY)\b", None),
        (r"(?:COMMENT|ENGINE|AUTO_INCREMENT|ROW_FORMAT|ALGORITHM|LOCK)\b", None),
        (r"(?:SET\s*\(|VALIDATE\s+CONSTRAINT\b|REPLICA\s+IDENTITY\b|CLUSTER\s+ON\b)", None),
    )
)
_ADD_COLUMN = re.compile(
    r"ADD\s+(?:COLUMN\s+)?(?P<if_not_exists>IF\s+NOT\s+EXISTS\s+)?(?P<column>[\w$]+)\s+(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_HAS_DEFAULT = re.compile(
    r"\bDEFAULT\b(?!\s+NULL\b)|\bGENERATED\b|\bAS\s*\(|\b(?:SMALL|BIG)?SERIAL\b|\bAUTO_INCREMENT\b", re.IGNORECASE
)
_ALTER_COLUMN = re.compile(
    r"(?:ALTER|DROP|CHANGE|MODIFY|RENAME)\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?P<column>[\w$]+)", re.I
)
_DELETE_ACTION = re.compile(r"\bON\s+DELETE\s+(?:CASCADE|SET\s+NULL)\b", re.IGNORECASE)

# Searched in the complete statement, because it may contain the body of a function. The first match decides.
_ANYWHERE: tuple[tuple[re.Pattern[str], Contraction], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), contraction)
    for pattern, contraction in (
        (r"\bCREATE\s+OR\s+REPLACE\s+(?:TEMPORARY\s+)?TABLE\b", rules.DROP_TABLE),
        (r"\bDROP\s+(?!NOT\s+NULL\b|ON\b)\w", rules.DROP_OTHER),
        (r"\bRENAME\s+TABLE\b", rules.RENAME_TABLE),
        (r"\bRENAME\s+(?:TO|VALUE|ATTRIBUTE|COLUMN|CONSTRAINT)\b", rules.RENAME_OTHER),
        (r"\bTHEN\s+DELETE\b", rules.DELETE_ROWS),
        (r"^\s*REVOKE\b", rules.REVOKE),
        (r"^\s*CALL\b|\bEXECUTE\b(?!\s+(?:FUNCTION|PROCEDURE|ON)\b)|\bPREPARE\b", rules.UNKNOWN_SQL),
        (r"\bPRAGMA\s+writable_schema\b", rules.UNKNOWN_STATEMENT),
        (
            r"^\s*ALTER\s+(?!TABLE\b|FOREIGN\s+TABLE\b|TYPE\s+\S+\s+ADD\s+VALUE\b|SEQUENCE\b|INDEX\b)",
            rules.UNKNOWN_STATEMENT,
        ),
    )
)


def check_sql(sql: str, added: Additions) -> Iterator[tuple[str, Contraction]]:
    """Yield the statements that contract the schema, with the reason.

    The statements are yielded without comments and string literals, which may contain secrets.

    :param added: what earlier statements add to the schema; the additions of these are stored there.
    """
    bare = _SKIPPED.sub(_blank, sql)
    # The end of a literal with a backslash before its quote depends on the database; an open literal has no end.
    if "\\'" in sql or bare.replace("''", "").count("'"):
        yield "…", rules.UNKNOWN_STATEMENT
    for part in bare.split(";"):
        statement = " ".join(part.split())
        for contraction in dict.fromkeys(_check_statement(statement, added)):
            yield statement, contraction


def _blank(found: re.Match[str]) -> str:
    if found["text"]:
        return " '' "
    if found["quoted"]:
        name = found["quoted"][1:-1]
        # A quoted keyword is a name, so it must not match as keyword. MySQL also quotes literals with ".
        return (f"{name}_" if _KEYWORD.fullmatch(name) else name) if _IDENTIFIER.fullmatch(name) else "''"
    return ";" if found["dollar"] else " "


def _check_statement(statement: str, added: Additions) -> Iterator[Contraction]:
    for pattern in (_DELETE, _TRUNCATE):
        if any(found["name"] not in added.tables for found in pattern.finditer(statement)):
            yield rules.DELETE_ROWS
        statement = pattern.sub(" ", statement)
    for found in _DROP_TABLE.finditer(statement):
        names = {name.strip() for name in found["names"].split(",")}
        if not names <= added.tables:
            yield rules.DROP_TABLE
        added.tables -= names
    if any(found["name"] not in added.indexes for found in _DROP_INDEX.finditer(statement)):
        yield rules.DROP_INDEX
    statement = _DROP_INDEX.sub(" ", _DROP_TABLE.sub(" ", statement))
    yield from _check_create(statement, added)
    altered = _ALTER_TABLE.search(statement)
    if altered:
        yield from _check_alter(altered["name"], altered["actions"], added)
        statement = statement[: altered.start()]
    yield from [contraction for pattern, contraction in _ANYWHERE if pattern.search(statement)][:1]


def _check_create(statement: str, added: Additions) -> Iterator[Contraction]:
    table, index = _CREATE_TABLE.search(statement), _CREATE_INDEX.search(statement)
    if table and not table["if_not_exists"]:
        added.tables.add(table["name"])
    if index and index["unique"] and index["name"] not in added.tables:
        yield rules.UNIQUE
    if index and index["index"] and not index["if_not_exists"]:
        added.indexes.add(index["index"])


def _check_alter(table: str, actions: str, added: Additions) -> Iterator[Contraction]:
    renamed = re.match(r"RENAME\s+(?:TO|AS)\s+(?P<name>[\w$.]+)", actions, re.IGNORECASE)
    if table in added.tables:
        if renamed:
            added.tables.discard(table)
            added.tables.add(renamed["name"])
        return
    for action in _split(actions):
        yield from _check_action(table, action, added)


def _check_action(table: str, action: str, added: Additions) -> Iterator[Contraction]:
    for pattern, contraction in _ACTIONS:
        if pattern.match(action):
            altered = _ALTER_COLUMN.match(action)
            is_new = altered is not None and (table, altered["column"]) in added.columns
            harmless = is_new and contraction in (rules.DROP_COLUMN, rules.RENAME_COLUMN, rules.CHANGE_TYPE)
            if contraction is not None and not harmless:
                yield contraction
            return
    column = _ADD_COLUMN.match(action)
    if column is None:
        yield rules.UNKNOWN_STATEMENT
        return
    rest = column["rest"]
    has_default = bool(_HAS_DEFAULT.search(rest))
    if not column["if_not_exists"]:
        added.columns[table, column["column"]] = has_default
    if re.search(r"\bPRIMARY\s+KEY\b", rest, re.IGNORECASE):
        yield rules.PRIMARY_KEY
    if re.search(r"\bNOT\s+NULL\b", rest, re.IGNORECASE) and not has_default:
        yield rules.NOT_NULL_COLUMN
    if re.search(r"\bUNIQUE\b", rest, re.IGNORECASE) and has_default:
        yield rules.UNIQUE
    if re.search(r"\bCHECK\b", rest, re.IGNORECASE):
        yield rules.CHECK
    if re.search(r"\bREFERENCES\b", rest, re.IGNORECASE) and (has_default or not _DELETE_ACTION.search(rest)):
        yield rules.FOREIGN_KEY


def _split(actions: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in actions:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
