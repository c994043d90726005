# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the expressions in a revision, as far as its source tells them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Functions of SQLAlchemy, and methods of its tables, that build a statement.
STATEMENTS = frozenset(["select", "insert", "update", "delete"])
_CONNECTION_ATTRIBUTES = frozenset(["connection", "bind", "engine", "dbapi_connection", "driver_connection", "session"])


@dataclass(frozen=True)
class Value:
    """The value of an expression. An instance of this class itself is an unknown value."""


@dataclass(frozen=True)
class Constant(Value):
    """A number, a boolean or None."""

    value: bool | int | float | None


@dataclass(frozen=True)
class Text(Value):
    """A string: one of *texts*, if branches or loops give it several values."""

    texts: frozenset[str]


@dataclass(frozen=True)
class Items(Value):
    """A list, tuple, set or generator."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Pairs(Value):
    """A dictionary, as pairs of key and value."""

    items: tuple[Items, ...]


@dataclass(frozen=True)
class DatabaseHandle(Value):
    """An object that gives access to the database.

    :param kind: the module ``alembic``, its ``op``, a batch of ``op``, a context, a connection or session, or a query.
    :param table: table of a batch.
    """

    kind: Literal["alembic", "op", "batch", "context", "connection", "query"]
    table: Value = Value()


@dataclass(frozen=True)
class Method(Value):
    """A method of a value."""

    owner: Value
    name: str


@dataclass(eq=False, frozen=True)
class Function(Value):
    """A function of the revision, with the scope that it is defined in."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: dict[str, Value]


@dataclass(frozen=True)
class Table(Value):
    """A table object of SQLAlchemy."""

    name: Value


@dataclass(frozen=True)
class Statement(Value):
    """A statement built with SQLAlchemy.

    :param kind: the function or class that builds it, such as ``delete`` or ``DropTable``.
    """

    kind: str
    table: Value = Value()


@dataclass(frozen=True)
class ColumnPart(Value):
    """A part of a column's definition: a constraint, or a default of the server."""

    kind: Literal["check", "foreign key", "foreign key with delete action", "default"]


@dataclass(frozen=True)
class Column(Value):
    """A column's definition.

    :param complete: whether the source shows all arguments of the definition.
    :param has_default: whether the server fills the column if an insert does not name it.
    :param parts: kinds of its :class:`ColumnPart`.
    """

    name: Value
    complete: bool
    not_null: bool
    has_default: bool
    unique: bool
    parts: frozenset[str]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call.

    :param complete: whether the source shows all of them, so that no unknown ``*`` or ``**`` is among them.
    """

    positional: tuple[Value, ...]
    named: Mapping[str, Value]
    complete: bool

    def get(self, position: int, *names: str) -> Value | None:
        """Return an argument by its position or else by one of its names, None if it is not given."""
        if position < len(self.positional):
            return self.positional[position]
        return next((self.named[name] for name in names if name in self.named), None)

    def all(self) -> tuple[Value, ...]:
        """Return all arguments."""
        return (*self.positional, *self.named.values())

    def with_table(self, name: str, table: Value) -> Arguments:
        """Return the arguments of a batch's method as those of ``op``'s, which also has the table."""
        position = TABLE_POSITION.get(name, 0)
        named = {**self.named, "table_name": table, "source_table": table}
        if len(self.positional) < position:
            return Arguments(self.positional, named, self.complete)
        before, after = self.positional[:position], self.positional[position:]
        return Arguments((*before, table, *after), named, self.complete)


#: Names and their values.
Scope = dict[str, Value]
UNKNOWN = Value()
NONE = Constant(None)

# Position of the table in the arguments of op's methods, if it is not the first.
TABLE_POSITION: Mapping[str, int] = {
    "create_index": 1,
    "drop_index": 1,
    "drop_constraint": 1,
    "create_unique_constraint": 1,
    "create_foreign_key": 1,
    "create_check_constraint": 1,
    "create_exclude_constraint": 1,
    "create_primary_key": 1,
}


def get_attribute(value: Value, name: str) -> Value:
    """Return the value of an attribute."""
    match value:
        case DatabaseHandle(kind="alembic"):
            return {"op": DatabaseHandle("op"), "context": DatabaseHandle("context")}.get(name, UNKNOWN)
        case DatabaseHandle(kind="context" | "connection") if name in _CONNECTION_ATTRIBUTES:
            # Also for connection() of a session: calling a connection returns a connection.
            return DatabaseHandle("connection")
        case DatabaseHandle(kind="context") if name == "impl":
            return DatabaseHandle("op")  # It has the same methods as op.
        case DatabaseHandle() | Text() | Items() | Pairs() | Table() | Statement():
            return Method(value, name)
    return UNKNOWN


def items_of(value: Value) -> tuple[Value, ...] | None:
    """Return the items that a loop over *value* visits, None if they are unknown."""
    if isinstance(value, Items):
        return value.items
    return tuple(pair.items[0] for pair in value.items) if isinstance(value, Pairs) else None


def concatenate(left: Value, right: Value) -> Value:
    """Return *left* + *right*."""
    if isinstance(left, Text) and isinstance(right, Text):
        return Text(frozenset(first + second for first in left.texts for second in right.texts))
    if isinstance(left, Items) and isinstance(right, Items):
        return Items(left.items + right.items)
    return UNKNOWN


def merge(one: Value | None, other: Value | None) -> Value:
    """Return a value that stands for either of two. A database handle or function is kept rather than lost."""
    if one == other and one is not None:
        return one
    if isinstance(one, Text) and isinstance(other, Text):
        return Text(one.texts | other.texts)
    return next((each for each in (one, other) if isinstance(each, (DatabaseHandle, Function, Method))), UNKNOWN)


def is_false(value: Value | None) -> bool:
    """Return whether an argument is certainly False, None or not given."""
    return value is None or value in (NONE, Constant(False))


def qualified_name(arguments: Arguments, table: Value | None) -> Value:
    """Return the name of a table, prefixed by the schema among *arguments*."""
    schema = arguments.named.get("schema", arguments.named.get("source_schema", NONE))
    if table is None or schema == NONE:
        return table or UNKNOWN
    return concatenate(concatenate(schema, Text(frozenset(["."]))), table)


def possible_texts(value: Value | None) -> frozenset[str]:
    """Return the strings that a value may be, empty if they are unknown."""
    return value.texts if isinstance(value, Text) else frozenset()


def label_of(value: Value | None) -> str:
    """Return the possible strings for a message."""
    return "/".join(sorted(possible_texts(value))) or "?"
