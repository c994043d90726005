# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds in an Alembic revision what does more than expand the database. Reads the source, runs nothing of it.

``upgrade()`` is followed through its branches, loops over constants and the functions of the same file. What cannot be
known from the source is refused, never waved through. Not seen: what functions of other files do that import Alembic's
``op`` themselves. ``# expand-only: <reason>`` on an operation's line declares it safe.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from . import expand_rules as rules
from . import expand_sql
from .expand_rules import Additions, Contraction

_DECLARED = re.compile(r"#\s*expand-only:\s*\S")
_SHOWN = 60


@dataclass(frozen=True)
class Finding:
    """An operation that contracts: its line (from 1), what it is, why it is refused, and what to do instead."""

    line: int
    operation: str
    reason: str
    cure: str


@dataclass(frozen=True)
class _Value:
    """What an expression stands for; this class itself: unknown."""


@dataclass(frozen=True)
class _Constant(_Value):
    value: bool | int | float | None


@dataclass(frozen=True)
class _Text(_Value):
    """One of these texts."""

    texts: frozenset[str]


@dataclass(frozen=True)
class _Items(_Value):
    items: tuple[_Value, ...]


@dataclass(frozen=True)
class _Pairs(_Value):
    items: tuple[_Items, ...]


@dataclass(frozen=True)
class _Database(_Value):
    """A way to the database: the module alembic, its op, a batch of op, a context, a connection, or a query of one."""

    kind: Literal["alembic", "op", "batch", "context", "connection", "query"]
    table: _Value = _Value()


@dataclass(frozen=True)
class _Method(_Value):
    owner: _Value
    name: str


@dataclass(eq=False, frozen=True)
class _Function(_Value):
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: dict[str, _Value]


@dataclass(frozen=True)
class _Table(_Value):
    name: _Value


@dataclass(frozen=True)
class _Statement(_Value):
    """A statement that SQLAlchemy builds; *kind* is the function that builds it."""

    kind: str
    table: _Value = _Value()


@dataclass(frozen=True)
class _Part(_Value):
    """What stands in a column's definition: a constraint, or what fills the column."""

    kind: Literal["check", "foreign key", "passive foreign key", "filled"]


@dataclass(frozen=True)
class _Column(_Value):
    name: _Value
    known: bool
    not_null: bool
    filled: bool
    unique: bool
    parts: frozenset[str]


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a call. *whole* is false where ``*`` or ``**`` hides some."""

    positional: tuple[_Value, ...]
    named: Mapping[str, _Value]
    whole: bool

    def get(self, position: int, *names: str) -> _Value | None:
        """Return an argument by position or else by one of its names; None where it is not given."""
        if position < len(self.positional):
            return self.positional[position]
        return next((self.named[name] for name in names if name in self.named), None)

    def all(self) -> tuple[_Value, ...]:
        """Return every argument."""
        return (*self.positional, *self.named.values())

    def with_table(self, name: str, table: _Value) -> _Arguments:
        """Return the arguments as op takes them: a batch leaves its table out."""
        position = _TABLE_POSITION.get(name, 0)
        named = {**self.named, "table_name": table, "source_table": table}
        if len(self.positional) < position:
            return _Arguments(self.positional, named, self.whole)
        before, after = self.positional[:position], self.positional[position:]
        return _Arguments((*before, table, *after), named, self.whole)


_Scope = dict[str, _Value]
_UNKNOWN = _Value()
_NONE = _Constant(None)

# Where op takes the table; first where nothing is said.
_TABLE_POSITION: Mapping[str, int] = {
    "create_index": 1,
    "drop_index": 1,
    "drop_constraint": 1,
    "create_unique_constraint": 1,
    "create_foreign_key": 1,
    "create_check_constraint": 1,
    "create_exclude_constraint": 1,
    "create_primary_key": 1,
}
_EXECUTES = frozenset(
    ["execute", "exec_driver_sql", "scalar", "scalars", "executemany", "executescript", "execute_async", "fetch"]
)
_CONNECTS = frozenset(
    ["connect", "begin", "begin_nested", "execution_options", "cursor", "raw_connection", "get_bind", "connection"]
)
_CONNECTION_ATTRIBUTES = frozenset(["connection", "bind", "engine", "dbapi_connection", "driver_connection", "session"])
_SESSIONS = frozenset(["Session", "sessionmaker", "scoped_session", "Connection", "AsyncSession"])
# Take a connection and change nothing, or only add.
_HARMLESS_WITH_CONNECTION = frozenset(
    [
        *("inspect", "from_engine", "create", "create_all", "reflect", "Table", "MetaData", "automap_base", "prepare"),
        *("print", "isinstance", "str", "repr", "len", "has_table", "getattr", "hasattr", "compile", "type", "closing"),
    ]
)
_STATEMENTS = frozenset(["select", "insert", "update", "delete"])
_KEEPS_TEXT = frozenset(["bindparams", "columns", "execution_options", "strip", "lstrip", "rstrip", "execute_if"])
_LISTS = frozenset(["list", "tuple", "sorted", "set", "frozenset", "reversed"])
_HARMLESS_OPERATIONS = frozenset(["bulk_insert", "drop_table_comment", "f", "inline_literal"])


def judge(source: str, added: Additions | None = None) -> list[Finding]:
    """Return what contracts in the source of a revision, by line.

    *added* is what the pending revisions before this one added; what this one adds is noted there.

    Raises:
        SyntaxError: *source* is no Python.
    """
    return _Judge(source, Additions() if added is None else added).run()


def judge_all(sources: Iterable[tuple[str, str]]) -> list[tuple[str, Finding]]:
    """Judge revisions, given as (file, source) in the order in which they will run. Returns (file, finding)."""
    added = Additions()
    return [(file, finding) for file, source in sources for finding in judge(source, added)]


class _Judge:
    """Goes through one file as Python would, with values instead of effects."""

    def __init__(self, source: str, added: Additions) -> None:
        self._tree = ast.parse(source)
        self._added = added
        self._declared = _declared(source)
        self._findings: dict[Finding, None] = {}
        self._running: list[ast.AST] = []
        self._returned: list[list[_Value]] = []
        self._module: _Scope = {}

    def run(self) -> list[Finding]:
        scope = self._module
        self._body(self._tree.body, scope)
        upgrade = scope.get("upgrade")
        if isinstance(upgrade, _Function):
            self._enter(upgrade, _Arguments((), {}, False))
        else:
            self._report(None, "upgrade()", rules.NO_UPGRADE)
        return sorted(self._findings, key=lambda finding: finding.line)

    def _report(self, node: ast.Call | None, operation: str, contraction: Contraction) -> None:
        line, last = (node.lineno, node.end_lineno or node.lineno) if node else (1, 1)
        if self._declared.isdisjoint(range(line, last + 1)):
            self._findings[Finding(line, operation, *contraction)] = None

    # Statements ------------------------------------------------------------------------------------------------

    def _body(self, statements: Iterable[ast.stmt], scope: _Scope) -> None:
        for statement in statements:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: _Scope) -> None:  # noqa: PLR0912 - one case for each kind
        match node:
            case ast.Import():
                for alias in node.names:
                    _import(alias, scope)
            case ast.ImportFrom():
                _import_from(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = _Function(node, scope)
            case ast.ClassDef():
                self._class(node, scope)
            case ast.Assign():
                value = self._eval(node.value, scope)
                for target in node.targets:
                    self._bind(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self._bind(node.target, self._eval(node.value, scope), scope)
            case ast.AugAssign():
                old = scope.get(node.target.id, _UNKNOWN) if isinstance(node.target, ast.Name) else _UNKNOWN
                self._bind(node.target, _add(old, self._eval(node.value, scope)), scope)
            case ast.For() | ast.AsyncFor():
                self._loop(node, scope)
            case ast.While():
                _forget(node, scope)
                self._eval(node.test, scope)
                self._branches([node.body, []], scope)
            case ast.If():
                self._eval(node.test, scope)
                self._branches([node.body, node.orelse], scope)
            case ast.Match():
                self._eval(node.subject, scope)
                self._branches([*(case.body for case in node.cases), []], scope)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self._eval(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, value, scope)
                self._body(node.body, scope)
            case ast.Return():
                value = _NONE if node.value is None else self._eval(node.value, scope)
                if self._returned:
                    self._returned[-1].append(value)
            case _ if hasattr(node, "handlers"):  # try, and from Python 3.11 on try with except*
                self._try(node, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._eval(child, scope)

    def _class(self, node: ast.ClassDef, scope: _Scope) -> None:
        """Go through every method, because it is not followed which are called."""
        scope[node.name] = _UNKNOWN
        inner = dict(scope)
        self._body(node.body, inner)
        for name, value in inner.items():
            if isinstance(value, _Function) and value is not scope.get(name):
                self._enter(value, _Arguments((), {}, False))

    def _branches(self, bodies: Iterable[list[ast.stmt]], scope: _Scope) -> None:
        """Go through each body from the same beginning, and keep what is so after any of them."""
        before, added = dict(scope), self._added.copy()
        ends = []
        for body in bodies:
            scope.clear()
            scope.update(before)
            _restore(self._added, added)
            self._body(body, scope)
            ends.append((dict(scope), self._added.copy()))
        first, after = ends[0]
        for other, others_added in ends[1:]:
            first = {name: _join(first.get(name), other.get(name)) for name in {**first, **other}}
            after.keep(others_added)
        scope.clear()
        scope.update(first)
        _restore(self._added, after)

    def _try(self, node: ast.stmt, scope: _Scope) -> None:
        body, orelse, final = (getattr(node, name) for name in ("body", "orelse", "finalbody"))
        self._branches([[*body, *orelse], []], scope)
        for handler in node.handlers:  # type: ignore[attr-defined] # of both kinds of try
            self._branches([handler.body, []], scope)
        self._body(final, scope)

    def _loop(self, node: ast.For | ast.AsyncFor, scope: _Scope) -> None:
        items = _iterated(self._eval(node.iter, scope))
        if items is None:
            _forget(node, scope)
            self._branches([node.body, []], scope)
        else:
            for item in items:
                self._bind(node.target, item, scope)
                self._body(node.body, scope)
        self._body(node.orelse, scope)

    def _bind(self, target: ast.expr, value: _Value, scope: _Scope) -> None:
        match target:
            case ast.Name():
                scope[target.id] = value
            case ast.Tuple() | ast.List():
                parts = value.items if isinstance(value, _Items) else ()
                fits = len(parts) == len(target.elts) and not any(isinstance(e, ast.Starred) for e in target.elts)
                for position, element in enumerate(target.elts):
                    self._bind(element, parts[position] if fits else _UNKNOWN, scope)
            case ast.Starred():
                self._bind(target.value, _UNKNOWN, scope)
            case _:
                # A list or an object that changes here is not what it was: whatever it is called, it is unknown.
                base = target
                while isinstance(base, (ast.Attribute, ast.Subscript)):
                    base = base.value
                if isinstance(base, ast.Name) and isinstance(scope.get(base.id), (_Items, _Pairs)):
                    scope[base.id] = _UNKNOWN

    # Expressions -----------------------------------------------------------------------------------------------

    def _eval(self, node: ast.expr, scope: _Scope) -> _Value:  # noqa: PLR0911, PLR0912 - one case for each kind
        match node:
            case ast.Constant(value=str(text)):
                return _Text(frozenset([text]))
            case ast.Constant(value=bool() | int() | float() | None as constant):
                return _Constant(constant)
            case ast.Name():
                return scope.get(node.id, _UNKNOWN)
            case ast.Attribute():
                return _attribute(self._eval(node.value, scope), node.attr)
            case ast.Call():
                return self._call(node, scope)
            case ast.Await():
                return self._eval(node.value, scope)
            case ast.Tuple() | ast.List() | ast.Set():
                values = tuple(self._eval(element, scope) for element in node.elts)
                return _UNKNOWN if any(isinstance(e, ast.Starred) for e in node.elts) else _Items(values)
            case ast.Dict():
                keys = [_UNKNOWN if key is None else self._eval(key, scope) for key in node.keys]
                values = tuple(self._eval(value, scope) for value in node.values)
                pairs = tuple(_Items(pair) for pair in zip(keys, values, strict=True))
                return _UNKNOWN if None in node.keys else _Pairs(pairs)
            case ast.BinOp(op=ast.Add()):
                return _add(self._eval(node.left, scope), self._eval(node.right, scope))
            case ast.JoinedStr():
                whole: _Value = _Text(frozenset([""]))
                for part in node.values:
                    whole = _add(whole, self._eval(part, scope))
                return whole
            case ast.FormattedValue():
                value = self._eval(node.value, scope)
                plain = node.conversion == -1 and node.format_spec is None
                return value if plain and isinstance(value, _Text) else _UNKNOWN
            case ast.NamedExpr():
                value = self._eval(node.value, scope)
                scope[node.target.id] = value
                return value
            case ast.IfExp():
                self._eval(node.test, scope)
                return _join(self._eval(node.body, scope), self._eval(node.orelse, scope))
            case ast.Lambda():
                return _Function(node, scope)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = dict(scope)
                results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                found = self._comprehension(node.generators, results, inner)
                return _UNKNOWN if found is None else _Items(tuple(found))
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._eval(child, scope)
                return _UNKNOWN

    def _comprehension(
        self, generators: list[ast.comprehension], results: list[ast.expr], scope: _Scope
    ) -> list[_Value] | None:
        if not generators:
            return [self._eval(result, scope) for result in results]
        generator = generators[0]
        items = _iterated(self._eval(generator.iter, scope))
        found: list[_Value] = []
        for item in (_UNKNOWN,) if items is None else items:
            self._bind(generator.target, item, scope)
            for condition in generator.ifs:
                self._eval(condition, scope)
            found += self._comprehension(generators[1:], results, scope) or []
        return None if items is None else found

    def _arguments(self, node: ast.Call, scope: _Scope) -> _Arguments:
        positional: list[_Value] = []
        whole = True
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                spread = _iterated(self._eval(argument.value, scope))
                positional += spread or ()
                whole = whole and spread is not None
            else:
                positional.append(self._eval(argument, scope))
        named = {each.arg: self._eval(each.value, scope) for each in node.keywords if each.arg is not None}
        for each in node.keywords:
            if each.arg is None:
                self._eval(each.value, scope)
                whole = False
        return _Arguments(tuple(positional), named, whole)

    def _enter(self, function: _Function, arguments: _Arguments) -> _Value:
        """Go through a function of this file. One that calls itself is gone through once."""
        node = function.node
        if node in self._running:
            return _UNKNOWN
        scope = dict(function.scope)
        ordered = [*node.args.posonlyargs, *node.args.args]
        defaults = dict(zip([each.arg for each in reversed(ordered)], reversed(node.args.defaults), strict=False))
        defaults |= {
            each.arg: value
            for each, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if value is not None
        }
        for position, each in enumerate([*ordered, *node.args.kwonlyargs]):
            given = arguments.get(position if position < len(ordered) else len(arguments.positional), each.arg)
            if given is None and arguments.whole and each.arg in defaults:
                given = self._eval(defaults[each.arg], scope)
            scope[each.arg] = given or _UNKNOWN
        if node.args.vararg:
            rest = arguments.positional[len(ordered) :]
            scope[node.args.vararg.arg] = _Items(rest) if arguments.whole else _UNKNOWN
        if node.args.kwarg:
            scope[node.args.kwarg.arg] = _UNKNOWN
        self._running.append(node)
        self._returned.append([])
        try:
            if isinstance(node, ast.Lambda):
                return self._eval(node.body, scope)
            self._body(node.body, scope)
        finally:
            self._running.pop()
            returned = self._returned.pop()
        result = returned[0] if returned else _NONE
        for other in returned[1:]:
            result = _join(result, other)
        return result

    def _call(self, node: ast.Call, scope: _Scope) -> _Value:  # noqa: PLR0911 - one case for each kind
        function = self._eval(node.func, scope)
        arguments = self._arguments(node, scope)
        match function:
            case _Function():
                return self._enter(function, arguments)
            case _Method(owner=_Database(kind="op" | "batch") as owner, name=name):
                return self._operate(owner, name, arguments, node)
            case _Method(owner=_Database() as owner, name=name):
                return self._ask(owner, name, arguments, node)
            case _Database(kind="connection"):  # a sessionmaker
                return function
            case _Method(owner=_Text() as text, name=name):
                return text if name in _KEEPS_TEXT else _UNKNOWN
            case _Method(owner=_Pairs(items=pairs), name=name):
                position = {"keys": 0, "values": 1}.get(name)
                columns = pairs if position is None else tuple(pair.items[position] for pair in pairs)
                return _Items(columns) if name in ("keys", "values", "items") else _UNKNOWN
            case _Method(owner=_Statement() as statement):
                return statement
            case _Method(owner=_Table(name=table), name=name) if name in _STATEMENTS:
                return _Statement(name, table)
            case _Method(owner=_Items(), name=name) if isinstance(node.func, ast.Attribute):
                self._bind(node.func, _UNKNOWN, scope)
                return _UNKNOWN
        return self._foreign(function, arguments, node)

    def _foreign(self, function: _Value, arguments: _Arguments, node: ast.Call) -> _Value:  # noqa: PLR0911, PLR0912
        """Judge the call of a function that is not in this file, by its name."""
        name = _last_name(node.func)
        first = arguments.get(0, "text", "name")
        connected = any(isinstance(each, _Database) and each.kind == "connection" for each in arguments.all())
        if name in ("drop", "drop_all") and connected:
            table = (
                function.owner.name if isinstance(function, _Method) and isinstance(function.owner, _Table) else None
            )
            if table is None or not self._is_added(_texts(table)):
                contraction = rules.DROP_OTHER if table is None and name == "drop" else rules.DROP_TABLE
                self._report(node, f"{_written(node.func)}()", contraction)
            return _UNKNOWN
        if name in ("text", "DDL", "dedent", "cleandoc", "str") and isinstance(first, _Text):
            return first
        if name == "Column":
            return _column(arguments)
        if name in ("table", "Table"):
            return _Table(_qualified(arguments, first))
        if name in ("Identity", "Computed", "Sequence"):
            return _Part("filled")
        if name == "CheckConstraint":
            return _Part("check")
        if name == "ForeignKey":
            return _Part("passive foreign key" if _is_passive(arguments) else "foreign key")
        if name in _STATEMENTS:
            return _Statement(name, first.name if isinstance(first, _Table) else _UNKNOWN)
        if re.fullmatch(r"(?:Create|Drop|Add|Set)[A-Z]\w+", name):
            return _Statement(name, first.name if isinstance(first, _Table) else _UNKNOWN)
        if name in _LISTS and isinstance(first, (_Items, _Pairs)):
            return _Items(_iterated(first) or ())
        if name in _SESSIONS and connected:
            return _Database("connection")
        handed = any(_leads_to_operations(each) for each in arguments.all())
        if handed or (connected and name not in _HARMLESS_WITH_CONNECTION):
            self._report(node, f"{_written(node.func)}()", rules.ELSEWHERE)
        called = [each for each in arguments.all() if isinstance(each, _Function)]
        if isinstance(node.func, ast.Subscript):
            # Chosen at run time, as globals()["upgrade_" + name]() does where a revision has several databases.
            names = (name for name in self._module if not name.startswith("downgrade"))
            called += [value for value in map(self._module.__getitem__, names) if isinstance(value, _Function)]
        for each in called:
            self._enter(each, _Arguments((), {}, False))
        return _UNKNOWN

    # Operations ------------------------------------------------------------------------------------------------

    def _operate(self, owner: _Database, name: str, arguments: _Arguments, node: ast.Call) -> _Value:  # noqa: PLR0911, PLR0912
        """Judge a method of op or of a batch."""
        match name:
            case "batch_alter_table":
                if arguments.named.get("table_args") not in (None, _NONE, _Items(())):
                    self._report(node, f"{_written(node.func)}()", rules.UNKNOWN_ARGUMENTS)
                return _Database("batch", _qualified(arguments, arguments.get(0, "table_name")))
            case "get_bind":
                return _Database("connection")
            case "get_context":
                return _Database("context")
            case "execute":
                self._execute(arguments.get(0, "sqltext"), node)
                return _UNKNOWN
            case "run_async":
                return self._run(arguments, node)
            case "f":
                return arguments.get(0, "name") or _UNKNOWN
            case _ if name in _HARMLESS_OPERATIONS:
                return _UNKNOWN
        if owner.kind == "batch":
            arguments = arguments.with_table(name, owner.table)
        rule = _RULES.get(name)
        if rule is None:
            if not name.startswith("create_"):
                contraction = rules.DROP_OTHER if name.startswith("drop_") else rules.UNKNOWN_OPERATION
                self._report(node, f"{_written(node.func)}()", contraction)
            return _UNKNOWN
        position = _TABLE_POSITION.get(name, 0)
        table = arguments.get(position, "table_name", "source_table", "old_table_name")
        if owner.kind == "op":
            table = _qualified(arguments, table)
        call = _Operation(arguments, table or _UNKNOWN, self._added)
        contractions = rule(call)
        if not self._is_added(_texts(call.table)):
            for contraction in contractions:
                self._report(node, f"{_written(node.func)}({call.label})", contraction)
        call.note()
        return _Table(call.table) if name == "create_table" else _UNKNOWN

    def _ask(self, owner: _Database, name: str, arguments: _Arguments, node: ast.Call) -> _Value:
        """Judge a method of a context, a connection (or session), or a query."""
        if name == "delete":
            self._report(node, f"{_written(node.func)}()", rules.DELETE_ROWS)
        elif name in _EXECUTES and owner.kind != "query":
            self._execute(arguments.get(0, "statement", "sql", "sqltext", "operation", "query"), node)
        elif name == "run_sync":
            return self._run(arguments, node)
        elif owner.kind == "connection" and name in _CONNECTS:
            return owner
        elif owner.kind == "query" or name == "query":
            return _Database("query")
        return _UNKNOWN

    def _run(self, arguments: _Arguments, node: ast.Call) -> _Value:
        """Go through the function of run_async or run_sync, which gets a connection."""
        function = arguments.get(0)
        if not isinstance(function, _Function):
            self._report(node, f"{_written(node.func)}()", rules.ELSEWHERE)
            return _UNKNOWN
        rest = (_Database("connection"), *arguments.positional[1:])
        return self._enter(function, _Arguments(rest, arguments.named, arguments.whole))

    def _execute(self, statement: _Value | None, node: ast.Call) -> None:
        method = _written(node.func)
        match statement:
            case _Text(texts=texts):
                for text in sorted(texts):
                    for shown, contraction in expand_sql.judge(text, self._added):
                        self._report(node, f"{method}({_shorten(shown)})", contraction)
            case _Statement(kind=kind, table=table):
                label = f"{method}({kind} {_shown(table)})"
                if kind == "delete" or kind.startswith("Drop"):
                    if not self._is_added(_texts(table)):
                        self._report(node, label, rules.DELETE_ROWS if kind == "delete" else rules.DROP_OTHER)
                elif not kind.startswith("Create") and kind not in _STATEMENTS:
                    self._report(node, label, rules.UNKNOWN_STATEMENT)
            case _:
                self._report(node, f"{method}()", rules.UNKNOWN_SQL)

    def _is_added(self, tables: frozenset[str]) -> bool:
        return bool(tables) and tables <= self._added.tables


class _Operation:
    """A call of op on a table, as the rules see it. What it adds is noted after it is judged."""

    def __init__(self, arguments: _Arguments, table: _Value, added: Additions) -> None:
        self.arguments = arguments
        self.table = table
        self.label = _shown(table)
        self.added = added
        self.note: Callable[[], None] = lambda: None

    def columns(self, value: _Value | None) -> list[bool | None]:
        """Tell of each named column: None if it was there before, else whether the database fills it."""
        named = [_texts(each) for each in (value.items if isinstance(value, _Items) else ())]
        tables = _texts(self.table)
        return [
            self.added.columns.get((next(iter(tables)), next(iter(names)))) if len(tables) == len(names) == 1 else None
            for names in named
        ]


def _create_table(call: _Operation) -> list[Contraction]:
    names = _texts(call.table)
    if call.arguments.whole and _is_no(call.arguments.named.get("if_not_exists")):
        call.note = lambda: call.added.tables.update(names if len(names) == 1 else ())
    return []


def _drop_table(call: _Operation) -> list[Contraction]:
    call.note = lambda: call.added.tables.difference_update(_texts(call.table))
    return [rules.DROP_TABLE]


def _rename_table(call: _Operation) -> list[Contraction]:
    new = _texts(_qualified(call.arguments, call.arguments.get(1, "new_table_name")))
    if len(new) == 1 and _texts(call.table) <= call.added.tables:
        call.note = lambda: call.added.tables.update(new)
    return [rules.RENAME_TABLE]


def _add_column(call: _Operation) -> list[Contraction]:
    column = call.arguments.get(1, "column")
    if not isinstance(column, _Column):
        return [rules.UNKNOWN_ARGUMENTS]
    call.label += f".{_shown(column.name)}"
    if not column.known or not call.arguments.whole:
        return [rules.UNKNOWN_ARGUMENTS]
    tables, names = _texts(call.table), _texts(column.name)
    if len(tables) == len(names) == 1 and _is_no(call.arguments.named.get("if_not_exists")):
        call.note = lambda: call.added.columns.update({(next(iter(tables)), next(iter(names))): column.filled})
    found = []
    if column.not_null and not column.filled:
        found.append(rules.NOT_NULL_COLUMN)
    # The old release leaves the column to its default. If that is NULL, neither of these refuses it.
    if column.unique and column.filled:
        found.append(rules.UNIQUE)
    if "foreign key" in column.parts or ("passive foreign key" in column.parts and column.filled):
        found.append(rules.FOREIGN_KEY)
    if "check" in column.parts:
        found.append(rules.CHECK)
    return found


def _drop_column(call: _Operation) -> list[Contraction]:
    column = call.arguments.get(1, "column_name")
    call.label += f".{_shown(column)}"
    return [] if call.columns(_Items((column or _UNKNOWN,))) != [None] else [rules.DROP_COLUMN]


def _alter_column(call: _Operation) -> list[Contraction]:
    column, given = call.arguments.get(1, "column_name"), call.arguments.named
    call.label += f".{_shown(column)}"
    state = call.columns(_Items((column or _UNKNOWN,)))[0]
    found = [] if call.arguments.whole else [rules.UNKNOWN_ARGUMENTS]
    nullable = given.get("nullable", _NONE)
    if nullable not in (_NONE, _Constant(True)) and not state:
        found.append(rules.SET_NOT_NULL if nullable == _Constant(False) else rules.UNKNOWN_ARGUMENTS)
    # For Alembic False is "no change" and None is "no default".
    if given.get("server_default") == _NONE:
        found.append(rules.DROP_DEFAULT)
    if state is None:
        if given.get("type_", _NONE) != _NONE:
            found.append(rules.CHANGE_TYPE)
        if given.get("new_column_name", given.get("name", _NONE)) != _NONE:
            found.append(rules.RENAME_COLUMN)
    return found


def _create_index(call: _Operation) -> list[Contraction]:
    names, given = _texts(call.arguments.get(0, "index_name")), call.arguments.named
    call.label += f".{'/'.join(sorted(names)) or '?'}"
    if _is_no(given.get("if_not_exists")):
        call.note = lambda: call.added.indexes.update(names if len(names) == 1 else ())
    if not call.arguments.whole:
        return [rules.UNKNOWN_ARGUMENTS]
    return [] if _is_no(given.get("unique")) else _unique(call, call.arguments.get(2, "columns"))


def _drop_index(call: _Operation) -> list[Contraction]:
    names = _texts(call.arguments.get(0, "index_name"))
    call.label = "/".join(sorted(names)) or "?"
    return [] if names and names <= call.added.indexes else [rules.DROP_INDEX]


def _create_unique_constraint(call: _Operation) -> list[Contraction]:
    return _unique(call, call.arguments.get(2, "columns"))


def _unique(call: _Operation, columns: _Value | None) -> list[Contraction]:
    # No two NULLs are equal, and the old release leaves a new column NULL.
    counted = any(name.endswith("nulls_not_distinct") for name in call.arguments.named)
    return [rules.UNIQUE] if counted or False not in call.columns(columns) else []


def _create_foreign_key(call: _Operation) -> list[Contraction]:
    begins_new = False in call.columns(call.arguments.get(3, "local_cols"))
    return [] if begins_new and _is_passive(call.arguments) else [rules.FOREIGN_KEY]


def _always(contraction: Contraction) -> Callable[[_Operation], list[Contraction]]:
    return lambda _call: [contraction]


_RULES: Mapping[str, Callable[[_Operation], list[Contraction]]] = {
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


def _column(arguments: _Arguments) -> _Column:
    given = arguments.named
    parts = {each.kind for each in arguments.positional if isinstance(each, _Part)}
    nullable, primary = given.get("nullable"), not _is_no(given.get("primary_key"))
    return _Column(
        name=arguments.get(0, "name") or _UNKNOWN,
        known=arguments.whole,
        not_null=primary if nullable is None else nullable != _Constant(True),
        filled=given.get("server_default", _NONE) != _NONE or "filled" in parts,
        unique=not _is_no(given.get("unique")),
        parts=frozenset(parts),
    )


def _import(alias: ast.alias, scope: _Scope) -> None:
    if alias.name == "alembic.op" and alias.asname:
        scope[alias.asname] = _Database("op")
    elif alias.name.partition(".")[0] == "alembic" and (not alias.asname or alias.name == "alembic"):
        scope[alias.asname or "alembic"] = _Database("alembic")
    else:
        scope[alias.asname or alias.name.partition(".")[0]] = _UNKNOWN


def _import_from(node: ast.ImportFrom, scope: _Scope) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        if node.module == "alembic" and not node.level:
            scope[name] = _attribute(_Database("alembic"), alias.name)
        elif node.module == "alembic.op" and not node.level:
            scope[name] = _Method(_Database("op"), alias.name)
        else:
            scope[name] = _UNKNOWN


def _attribute(value: _Value, name: str) -> _Value:
    match value:
        case _Database(kind="alembic"):
            return {"op": _Database("op"), "context": _Database("context")}.get(name, _UNKNOWN)
        case _Database(kind="context" | "connection") if name in _CONNECTION_ATTRIBUTES:
            # Called it gives a connection too: a session's connection().
            return _Database("connection")
        case _Database(kind="context") if name == "impl":
            return _Database("op")  # The same methods, one level down.
        case _Database() | _Text() | _Items() | _Pairs() | _Table() | _Statement():
            return _Method(value, name)
    return _UNKNOWN


def _iterated(value: _Value) -> tuple[_Value, ...] | None:
    """Return what a loop over the value sees, None if that is unknown."""
    if isinstance(value, _Items):
        return value.items
    return tuple(pair.items[0] for pair in value.items) if isinstance(value, _Pairs) else None


def _add(left: _Value, right: _Value) -> _Value:
    if isinstance(left, _Text) and isinstance(right, _Text):
        return _Text(frozenset(first + second for first in left.texts for second in right.texts))
    if isinstance(left, _Items) and isinstance(right, _Items):
        return _Items(left.items + right.items)
    return _UNKNOWN


def _join(one: _Value | None, other: _Value | None) -> _Value:
    """Return what is either of two values. A way to the database stays one."""
    if one == other and one is not None:
        return one
    if isinstance(one, _Text) and isinstance(other, _Text):
        return _Text(one.texts | other.texts)
    return next((each for each in (one, other) if isinstance(each, (_Database, _Function, _Method))), _UNKNOWN)


def _forget(loop: ast.AST, scope: _Scope) -> None:
    """Forget the names that a loop changes, where it is not known how often it runs."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope[node.id] = _UNKNOWN


def _restore(added: Additions, to: Additions) -> None:
    copy = to.copy()
    added.tables, added.columns, added.indexes = copy.tables, copy.columns, copy.indexes


def _is_no(value: _Value | None) -> bool:
    return value is None or value in (_NONE, _Constant(False))


def _is_passive(arguments: _Arguments) -> bool:
    actions = _texts(arguments.named.get("ondelete"))
    return bool(actions) and {action.upper() for action in actions} <= {"CASCADE", "SET NULL"}


def _leads_to_operations(value: _Value) -> bool:
    owner = value.owner if isinstance(value, _Method) else value
    return isinstance(owner, _Database) and owner.kind in ("alembic", "op", "batch")


def _qualified(arguments: _Arguments, table: _Value | None) -> _Value:
    """Return the table's name with its schema, as SQL says it."""
    schema = arguments.named.get("schema", arguments.named.get("source_schema", _NONE))
    if table is None or schema == _NONE:
        return table or _UNKNOWN
    return _add(_add(schema, _Text(frozenset(["."]))), table)


def _texts(value: _Value | None) -> frozenset[str]:
    return value.texts if isinstance(value, _Text) else frozenset()


def _shown(value: _Value | None) -> str:
    return "/".join(sorted(_texts(value))) or "?"


def _last_name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _written(function: ast.expr) -> str:
    """Return the name of a function as the file writes it; of a long one the end."""
    text = " ".join(ast.unparse(function).split())
    return text if len(text) <= _SHOWN else f"….{_last_name(function)}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _declared(source: str) -> frozenset[int]:
    """Return the lines whose comment declares their operation safe, with a reason."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return frozenset(
        token.start[0] for token in tokens if token.type == tokenize.COMMENT and _DECLARED.match(token.string)
    )
