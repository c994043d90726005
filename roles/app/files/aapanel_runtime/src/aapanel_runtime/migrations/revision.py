# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the operations of an Alembic revision that contract the schema, without running it.

``upgrade()`` is interpreted. An operation whose effect the source does not show is reported too. Functions of other
files that import Alembic's ``op`` themselves are not detected. ``# expand-only: <reason>`` on the line of an operation
declares it safe.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass

from . import rules, sql
from .interpreter import Interpreter
from .operations import RULES, Operation, column_of, has_delete_action
from .rules import Additions, Contraction
from .values import (
    NONE,
    STATEMENTS,
    TABLE_POSITION,
    UNKNOWN,
    Arguments,
    ColumnPart,
    DatabaseHandle,
    Function,
    Items,
    Method,
    Pairs,
    Statement,
    Table,
    Text,
    Value,
    items_of,
    label_of,
    possible_texts,
    qualified_name,
)

_SAFE_COMMENT = re.compile(r"#\s*expand-only:\s*\S")
_MAX_SHOWN = 60


@dataclass(frozen=True)
class Finding:
    """An operation that contracts the schema.

    :param line: line in the file, from 1.
    :param operation: the call, shortened.
    :param reason: why it contracts the schema.
    :param cure: what to do instead.
    """

    line: int
    operation: str
    reason: str
    cure: str


_EXECUTE_METHODS = frozenset(
    ["execute", "exec_driver_sql", "scalar", "scalars", "executemany", "executescript", "execute_async", "fetch"]
)
_CONNECTION_METHODS = frozenset(
    ["connect", "begin", "begin_nested", "execution_options", "cursor", "raw_connection", "get_bind", "connection"]
)
_SESSION_CLASSES = frozenset(["Session", "sessionmaker", "scoped_session", "Connection", "AsyncSession"])
# Functions that take a connection and only read or expand the schema.
_SAFE_WITH_CONNECTION = frozenset(
    [
        *("inspect", "from_engine", "create", "create_all", "reflect", "Table", "MetaData", "automap_base", "prepare"),
        *("print", "isinstance", "str", "repr", "len", "has_table", "getattr", "hasattr", "compile", "type", "closing"),
    ]
)
_COLLECTIONS = frozenset(["list", "tuple", "sorted", "set", "frozenset", "reversed"])
_SAFE_OPERATIONS = frozenset(["bulk_insert", "drop_table_comment", "inline_literal"])


def check_revision(source: str, added: Additions | None = None) -> list[Finding]:
    """Return the operations of a revision that contract the schema, by line.

    :param source: content of the revision's file.
    :param added: what earlier pending revisions add to the schema; the additions of this one are stored there.
    :raises SyntaxError: *source* is not Python.
    """
    return _RevisionCheck(source, Additions() if added is None else added).run()


def check_revisions(sources: Iterable[tuple[str, str]]) -> list[tuple[str, Finding]]:
    """Check revisions.

    :param sources: file and content of each revision, in the order in which they run.
    :returns: file and finding.
    """
    added = Additions()
    return [(file, finding) for file, source in sources for finding in check_revision(source, added)]


class _RevisionCheck(Interpreter):
    """Interprets a revision, and reports the calls that contract the schema."""

    def __init__(self, source: str, added: Additions) -> None:
        super().__init__(source, added)
        self._safe_lines = _safe_lines(source)
        self._findings: dict[Finding, None] = {}

    def run(self) -> list[Finding]:
        scope = self._module
        self._body(self._tree.body, scope)
        upgrade = scope.get("upgrade")
        if isinstance(upgrade, Function):
            self._run_function(upgrade, Arguments((), {}, False))
        else:
            self._report(None, "upgrade()", rules.NO_UPGRADE)
        return sorted(self._findings, key=lambda finding: finding.line)

    def _report(self, node: ast.Call | None, operation: str, contraction: Contraction) -> None:
        line, last = (node.lineno, node.end_lineno or node.lineno) if node else (1, 1)
        if self._safe_lines.isdisjoint(range(line, last + 1)):
            self._findings[Finding(line, operation, *contraction)] = None

    def _call_external(self, function: Value, arguments: Arguments, node: ast.Call) -> Value:
        match function:
            case Method(owner=DatabaseHandle(kind="op" | "batch") as owner, name=name):
                return self._call_operation(owner, name, arguments, node)
            case Method(owner=DatabaseHandle() as owner, name=name):
                return self._call_connection(owner, name, arguments, node)
            case DatabaseHandle(kind="connection"):  # a sessionmaker
                return function
        return self._call_by_name(function, arguments, node)

    def _call_by_name(self, function: Value, arguments: Arguments, node: ast.Call) -> Value:  # noqa: PLR0911, PLR0912
        """Check the call of a function that is not in this file and is only known by its name."""
        name = _last_name(node.func)
        first = arguments.get(0, "text", "name")
        connected = any(isinstance(each, DatabaseHandle) and each.kind == "connection" for each in arguments.all())
        if name in ("drop", "drop_all") and connected:
            table = function.owner.name if isinstance(function, Method) and isinstance(function.owner, Table) else None
            if table is None or not self._is_added(possible_texts(table)):
                contraction = rules.DROP_OTHER if table is None and name == "drop" else rules.DROP_TABLE
                self._report(node, f"{_source_name(node.func)}()", contraction)
            return UNKNOWN
        if name in ("text", "DDL", "dedent", "cleandoc", "str") and isinstance(first, Text):
            return first
        if name == "Column":
            return column_of(arguments)
        if name in ("table", "Table"):
            return Table(qualified_name(arguments, first))
        if name in ("Identity", "Computed", "Sequence"):
            return ColumnPart("default")
        if name == "CheckConstraint":
            return ColumnPart("check")
        if name == "ForeignKey":
            return ColumnPart("foreign key with delete action" if has_delete_action(arguments) else "foreign key")
        if name in STATEMENTS:
            return Statement(name, first.name if isinstance(first, Table) else UNKNOWN)
        if re.fullmatch(r"(?:Create|Drop|Add|Set)[A-Z]\w+", name):
            return Statement(name, first.name if isinstance(first, Table) else UNKNOWN)
        if name in _COLLECTIONS and isinstance(first, (Items, Pairs)):
            return Items(items_of(first) or ())
        if name in _SESSION_CLASSES and connected:
            return DatabaseHandle("connection")
        passes_op = any(_gives_operations(each) for each in arguments.all())
        if passes_op or (connected and name not in _SAFE_WITH_CONNECTION):
            self._report(node, f"{_source_name(node.func)}()", rules.EXTERNAL_CODE)
        called = [each for each in arguments.all() if isinstance(each, Function)]
        if isinstance(node.func, ast.Subscript):
            # Selected at run time, like globals()["upgrade_" + name]() in a revision for several databases.
            names = (name for name in self._module if not name.startswith("downgrade"))
            called += [value for value in map(self._module.__getitem__, names) if isinstance(value, Function)]
        for each in called:
            self._run_function(each, Arguments((), {}, False))
        return UNKNOWN

    def _call_operation(self, owner: DatabaseHandle, name: str, arguments: Arguments, node: ast.Call) -> Value:  # noqa: PLR0911, PLR0912
        """Check a method of ``op`` or of a batch."""
        match name:
            case "batch_alter_table":
                if arguments.named.get("table_args") not in (None, NONE, Items(())):
                    self._report(node, f"{_source_name(node.func)}()", rules.UNKNOWN_ARGUMENTS)
                return DatabaseHandle("batch", qualified_name(arguments, arguments.get(0, "table_name")))
            case "get_bind":
                return DatabaseHandle("connection")
            case "get_context":
                return DatabaseHandle("context")
            case "execute":
                self._check_statement(arguments.get(0, "sqltext"), node)
                return UNKNOWN
            case "run_async":
                return self._run_with_connection(arguments, node)
            case "f":
                return arguments.get(0, "name") or UNKNOWN
            case _ if name in _SAFE_OPERATIONS:
                return UNKNOWN
        if owner.kind == "batch":
            arguments = arguments.with_table(name, owner.table)
        rule = RULES.get(name)
        if rule is None:
            if not name.startswith("create_"):
                contraction = rules.DROP_OTHER if name.startswith("drop_") else rules.UNKNOWN_OPERATION
                self._report(node, f"{_source_name(node.func)}()", contraction)
            return UNKNOWN
        position = TABLE_POSITION.get(name, 0)
        table = arguments.get(position, "table_name", "source_table", "old_table_name")
        if owner.kind == "op":
            table = qualified_name(arguments, table)
        call = Operation(arguments, table or UNKNOWN, self._added)
        contractions = rule(call)
        if not self._is_added(possible_texts(call.table)):
            for contraction in contractions:
                self._report(node, f"{_source_name(node.func)}({call.label})", contraction)
        call.record()
        return Table(call.table) if name == "create_table" else UNKNOWN

    def _call_connection(self, owner: DatabaseHandle, name: str, arguments: Arguments, node: ast.Call) -> Value:
        """Check a method of a context, a connection, a session or a query."""
        if name == "delete":
            self._report(node, f"{_source_name(node.func)}()", rules.DELETE_ROWS)
        elif name in _EXECUTE_METHODS and owner.kind != "query":
            self._check_statement(arguments.get(0, "statement", "sql", "sqltext", "operation", "query"), node)
        elif name == "run_sync":
            return self._run_with_connection(arguments, node)
        elif owner.kind == "connection" and name in _CONNECTION_METHODS:
            return owner
        elif owner.kind == "query" or name == "query":
            return DatabaseHandle("query")
        return UNKNOWN

    def _run_with_connection(self, arguments: Arguments, node: ast.Call) -> Value:
        """Run the function that run_async or run_sync calls with a connection."""
        function = arguments.get(0)
        if not isinstance(function, Function):
            self._report(node, f"{_source_name(node.func)}()", rules.EXTERNAL_CODE)
            return UNKNOWN
        rest = (DatabaseHandle("connection"), *arguments.positional[1:])
        return self._run_function(function, Arguments(rest, arguments.named, arguments.complete))

    def _check_statement(self, statement: Value | None, node: ast.Call) -> None:
        method = _source_name(node.func)
        match statement:
            case Text(texts=texts):
                for text in sorted(texts):
                    for shown, contraction in sql.check_sql(text, self._added):
                        self._report(node, f"{method}({_shorten(shown)})", contraction)
            case Statement(kind=kind, table=table):
                label = f"{method}({kind} {label_of(table)})"
                if kind == "delete" or kind.startswith("Drop"):
                    if not self._is_added(possible_texts(table)):
                        self._report(node, label, rules.DELETE_ROWS if kind == "delete" else rules.DROP_OTHER)
                elif not kind.startswith("Create") and kind not in STATEMENTS:
                    self._report(node, label, rules.UNKNOWN_STATEMENT)
            case _:
                self._report(node, f"{method}()", rules.UNKNOWN_SQL)

    def _is_added(self, tables: frozenset[str]) -> bool:
        return bool(tables) and tables <= self._added.tables


def _gives_operations(value: Value) -> bool:
    """Return whether a function could call operations with *value*."""
    owner = value.owner if isinstance(value, Method) else value
    return isinstance(owner, DatabaseHandle) and owner.kind in ("alembic", "op", "batch")


def _last_name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _source_name(function: ast.expr) -> str:
    """Return the name of a function as in the source; only the end of a long name."""
    text = " ".join(ast.unparse(function).split())
    return text if len(text) <= _MAX_SHOWN else f"….{_last_name(function)}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _safe_lines(source: str) -> frozenset[int]:
    """Return the lines with a comment that declares an operation safe and gives a reason."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return frozenset(
        token.start[0] for token in tokens if token.type == tokenize.COMMENT and _SAFE_COMMENT.match(token.string)
    )
