# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations of Alembic's ``op``: which of them contract the schema, and what they add to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import rules
from .rules import Additions, Contraction
from .values import (
    NONE,
    UNKNOWN,
    Arguments,
    Column,
    ColumnPart,
    Constant,
    Items,
    Value,
    is_false,
    label_of,
    possible_texts,
    qualified_name,
)


class Operation:
    """A call of a method of ``op`` on a table.

    ``record`` stores what the call adds; it is called after the check, so that a call does not excuse itself.
    """

    def __init__(self, arguments: Arguments, table: Value, added: Additions) -> None:
        """Describe the call; *added* is what earlier operations have added."""
        self.arguments = arguments
        self.table = table
        self.label = label_of(table)
        self.added = added
        self.record: Callable[[], None] = lambda: None

    def added_columns(self, value: Value | None) -> list[bool | None]:
        """Return for each named column None if it existed before, else whether the server fills it on insert."""
        named = [possible_texts(each) for each in (value.items if isinstance(value, Items) else ())]
        tables = possible_texts(self.table)
        return [
            self.added.columns.get((next(iter(tables)), next(iter(names)))) if len(tables) == len(names) == 1 else None
            for names in named
        ]


def _create_table(call: Operation) -> list[Contraction]:
    names = possible_texts(call.table)
    if call.arguments.complete and is_false(call.arguments.named.get("if_not_exists")):
        call.record = lambda: call.added.tables.update(names if len(names) == 1 else ())
    return []


def _drop_table(call: Operation) -> list[Contraction]:
    call.record = lambda: call.added.tables.difference_update(possible_texts(call.table))
    return [rules.DROP_TABLE]


def _rename_table(call: Operation) -> list[Contraction]:
    new = possible_texts(qualified_name(call.arguments, call.arguments.get(1, "new_table_name")))
    if len(new) == 1 and possible_texts(call.table) <= call.added.tables:
        call.record = lambda: call.added.tables.update(new)
    return [rules.RENAME_TABLE]


def _add_column(call: Operation) -> list[Contraction]:
    column = call.arguments.get(1, "column")
    if not isinstance(column, Column):
        return [rules.UNKNOWN_ARGUMENTS]
    call.label += f".{label_of(column.name)}"
    if not column.complete or not call.arguments.complete:
        return [rules.UNKNOWN_ARGUMENTS]
    tables, names = possible_texts(call.table), possible_texts(column.name)
    if len(tables) == len(names) == 1 and is_false(call.arguments.named.get("if_not_exists")):
        call.record = lambda: call.added.columns.update({(next(iter(tables)), next(iter(names))): column.has_default})
    found = []
    if column.not_null and not column.has_default:
        found.append(rules.NOT_NULL_COLUMN)
    # The previous release does not set the column. Neither constraint refuses NULL, so only a default matters.
    if column.unique and column.has_default:
        found.append(rules.UNIQUE)
    if "foreign key" in column.parts or ("foreign key with delete action" in column.parts and column.has_default):
        found.append(rules.FOREIGN_KEY)
    if "check" in column.parts:
        found.append(rules.CHECK)
    return found


def _drop_column(call: Operation) -> list[Contraction]:
    column = call.arguments.get(1, "column_name")
    call.label += f".{label_of(column)}"
    return [] if call.added_columns(Items((column or UNKNOWN,))) != [None] else [rules.DROP_COLUMN]


def _alter_column(call: Operation) -> list[Contraction]:
    column, given = call.arguments.get(1, "column_name"), call.arguments.named
    call.label += f".{label_of(column)}"
    state = call.added_columns(Items((column or UNKNOWN,)))[0]
    found = [] if call.arguments.complete else [rules.UNKNOWN_ARGUMENTS]
    nullable = given.get("nullable", NONE)
    if nullable not in (NONE, Constant(True)) and not state:
        found.append(rules.SET_NOT_NULL if nullable == Constant(False) else rules.UNKNOWN_ARGUMENTS)
    # For Alembic False is "no change" and None is "no default".
    if given.get("server_default") == NONE:
        found.append(rules.DROP_DEFAULT)
    if state is None:
        if given.get("type_", NONE) != NONE:
            found.append(rules.CHANGE_TYPE)
        if given.get("new_column_name", given.get("name", NONE)) != NONE:
            found.append(rules.RENAME_COLUMN)
    return found


def _create_index(call: Operation) -> list[Contraction]:
    names, given = possible_texts(call.arguments.get(0, "index_name")), call.arguments.named
    call.label += f".{'/'.join(sorted(names)) or '?'}"
    if is_false(given.get("if_not_exists")):
        call.record = lambda: call.added.indexes.update(names if len(names) == 1 else ())
    if not call.arguments.complete:
        return [rules.UNKNOWN_ARGUMENTS]
    return [] if is_false(given.get("unique")) else _unique(call, call.arguments.get(2, "columns"))


def _drop_index(call: Operation) -> list[Contraction]:
    names = possible_texts(call.arguments.get(0, "index_name"))
    call.label = "/".join(sorted(names)) or "?"
    return [] if names and names <= call.added.indexes else [rules.DROP_INDEX]


def _create_unique_constraint(call: Operation) -> list[Contraction]:
    return _unique(call, call.arguments.get(2, "columns"))


def _unique(call: Operation, columns: Value | None) -> list[Contraction]:
    # NULLs are distinct, and the previous release leaves a new column NULL.
    nulls_count = any(name.endswith("nulls_not_distinct") for name in call.arguments.named)
    return [rules.UNIQUE] if nulls_count or False not in call.added_columns(columns) else []


def _create_foreign_key(call: Operation) -> list[Contraction]:
    on_new_column = False in call.added_columns(call.arguments.get(3, "local_cols"))
    return [] if on_new_column and has_delete_action(call.arguments) else [rules.FOREIGN_KEY]


def _always(contraction: Contraction) -> Callable[[Operation], list[Contraction]]:
    return lambda _call: [contraction]


#: Returns why an operation contracts the schema, by the name of the method.
RULES: Mapping[str, Callable[[Operation], list[Contraction]]] = {
    "create_table": _create_table,
    "drop_table": _drop_table,
    "rename_table": _rename_table,
    "add_column": _add_column,
    "drop_column": _drop_column,
    "alter_column": _alter_column,
    "create_index": _create_index,
    "drop_index": _drop_index,
    "create_unique_constraint": _create_unique_constraint,
    "create_foreign_key": _create_foreign_key,
    "create_check_constraint": _always(rules.CHECK),
    "create_exclude_constraint": _always(rules.CHECK),
    "create_primary_key": _always(rules.PRIMARY_KEY),
    "drop_constraint": _always(rules.DROP_CONSTRAINT),
}


def column_of(arguments: Arguments) -> Column:
    """Return the column that ``sa.Column`` makes of *arguments*."""
    given = arguments.named
    parts = {each.kind for each in arguments.positional if isinstance(each, ColumnPart)}
    nullable, primary = given.get("nullable"), not is_false(given.get("primary_key"))
    return Column(
        name=arguments.get(0, "name") or UNKNOWN,
        complete=arguments.complete,
        not_null=primary if nullable is None else nullable != Constant(True),
        has_default=given.get("server_default", NONE) != NONE or "default" in parts,
        unique=not is_false(given.get("unique")),
        parts=frozenset(parts),
    )


def has_delete_action(arguments: Arguments) -> bool:
    """Return whether a foreign key lets the previous release delete the rows that it references."""
    actions = possible_texts(arguments.named.get("ondelete"))
    return bool(actions) and {action.upper() for action in actions} <= {"CASCADE", "SET NULL"}
