# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interprets the source of a revision without running it.

Branches, loops over constants and the functions of the same file are followed. All other values are unknown.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterable

from .rules import Additions
from .values import (
    NONE,
    STATEMENTS,
    UNKNOWN,
    Arguments,
    Constant,
    DatabaseHandle,
    Function,
    Items,
    Method,
    Pairs,
    Scope,
    Statement,
    Table,
    Text,
    Value,
    concatenate,
    get_attribute,
    items_of,
    merge,
)

# Methods of a string or of text() whose result is the same SQL.
_TEXT_METHODS = frozenset(["bindparams", "columns", "execution_options", "strip", "lstrip", "rstrip", "execute_if"])


class Interpreter(ABC):
    """Interprets one file, and passes calls of functions outside of it to :meth:`_call_external`."""

    def __init__(self, source: str, added: Additions) -> None:
        """Parse the file; *added* is what the pending revisions have added so far.

        :raises SyntaxError: *source* is not Python.
        """
        self._tree = ast.parse(source)
        self._added = added
        self._module: Scope = {}
        self._running: list[ast.AST] = []
        self._returned: list[list[Value]] = []

    @abstractmethod
    def _call_external(self, function: Value, arguments: Arguments, node: ast.Call) -> Value:
        """Return the result of calling a function that is not in this file."""

    # Statements ------------------------------------------------------------------------------------------------

    def _body(self, statements: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: Scope) -> None:  # noqa: PLR0912 - one case for each kind
        match node:
            case ast.Import():
                for alias in node.names:
                    _import(alias, scope)
            case ast.ImportFrom():
                _import_from(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = Function(node, scope)
            case ast.ClassDef():
                self._class(node, scope)
            case ast.Assign():
                value = self._eval(node.value, scope)
                for target in node.targets:
                    self._bind(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self._bind(node.target, self._eval(node.value, scope), scope)
            case ast.AugAssign():
                old = scope.get(node.target.id, UNKNOWN) if isinstance(node.target, ast.Name) else UNKNOWN
                self._bind(node.target, concatenate(old, self._eval(node.value, scope)), scope)
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
                value = NONE if node.value is None else self._eval(node.value, scope)
                if self._returned:
                    self._returned[-1].append(value)
            case _ if hasattr(node, "handlers"):  # try, and since Python 3.11 try with except*
                self._try(node, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._eval(child, scope)

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        """Run each method, because calls of methods are not followed."""
        scope[node.name] = UNKNOWN
        inner = dict(scope)
        self._body(node.body, inner)
        for name, value in inner.items():
            if isinstance(value, Function) and value is not scope.get(name):
                self._run_function(value, Arguments((), {}, False))

    def _branches(self, bodies: Iterable[list[ast.stmt]], scope: Scope) -> None:
        """Run each body from the same state, and merge the resulting states."""
        before, added = dict(scope), self._added.copy()
        results = []
        for body in bodies:
            scope.clear()
            scope.update(before)
            _restore(self._added, added)
            self._body(body, scope)
            results.append((dict(scope), self._added.copy()))
        first, after = results[0]
        for other, others_added in results[1:]:
            first = {name: merge(first.get(name), other.get(name)) for name in {**first, **other}}
            after.intersect(others_added)
        scope.clear()
        scope.update(first)
        _restore(self._added, after)

    def _try(self, node: ast.stmt, scope: Scope) -> None:
        body, orelse, final = (getattr(node, name) for name in ("body", "orelse", "finalbody"))
        self._branches([[*body, *orelse], []], scope)
        for handler in node.handlers:  # type: ignore[attr-defined] # both kinds of try have it
            self._branches([handler.body, []], scope)
        self._body(final, scope)

    def _loop(self, node: ast.For | ast.AsyncFor, scope: Scope) -> None:
        items = items_of(self._eval(node.iter, scope))
        if items is None:
            _forget(node, scope)
            self._branches([node.body, []], scope)
        else:
            for item in items:
                self._bind(node.target, item, scope)
                self._body(node.body, scope)
        self._body(node.orelse, scope)

    def _bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope[target.id] = value
            case ast.Tuple() | ast.List():
                parts = value.items if isinstance(value, Items) else ()
                fits = len(parts) == len(target.elts) and not any(isinstance(e, ast.Starred) for e in target.elts)
                for position, element in enumerate(target.elts):
                    self._bind(element, parts[position] if fits else UNKNOWN, scope)
            case ast.Starred():
                self._bind(target.value, UNKNOWN, scope)
            case _:
                # An assignment to an item or attribute changes the list or dictionary, so its value becomes unknown.
                base = target
                while isinstance(base, (ast.Attribute, ast.Subscript)):
                    base = base.value
                if isinstance(base, ast.Name) and isinstance(scope.get(base.id), (Items, Pairs)):
                    scope[base.id] = UNKNOWN

    # Expressions -----------------------------------------------------------------------------------------------

    def _eval(self, node: ast.expr, scope: Scope) -> Value:  # noqa: PLR0911, PLR0912 - one case for each kind
        match node:
            case ast.Constant(value=str(text)):
                return Text(frozenset([text]))
            case ast.Constant(value=bool() | int() | float() | None as constant):
                return Constant(constant)
            case ast.Name():
                return scope.get(node.id, UNKNOWN)
            case ast.Attribute():
                return get_attribute(self._eval(node.value, scope), node.attr)
            case ast.Call():
                return self._call(node, scope)
            case ast.Await():
                return self._eval(node.value, scope)
            case ast.Tuple() | ast.List() | ast.Set():
                values = tuple(self._eval(element, scope) for element in node.elts)
                return UNKNOWN if any(isinstance(e, ast.Starred) for e in node.elts) else Items(values)
            case ast.Dict():
                keys = [UNKNOWN if key is None else self._eval(key, scope) for key in node.keys]
                values = tuple(self._eval(value, scope) for value in node.values)
                pairs = tuple(Items(pair) for pair in zip(keys, values, strict=True))
                return UNKNOWN if None in node.keys else Pairs(pairs)
            case ast.BinOp(op=ast.Add()):
                return concatenate(self._eval(node.left, scope), self._eval(node.right, scope))
            case ast.JoinedStr():
                joined: Value = Text(frozenset([""]))
                for part in node.values:
                    joined = concatenate(joined, self._eval(part, scope))
                return joined
            case ast.FormattedValue():
                value = self._eval(node.value, scope)
                plain = node.conversion == -1 and node.format_spec is None
                return value if plain and isinstance(value, Text) else UNKNOWN
            case ast.NamedExpr():
                value = self._eval(node.value, scope)
                scope[node.target.id] = value
                return value
            case ast.IfExp():
                self._eval(node.test, scope)
                return merge(self._eval(node.body, scope), self._eval(node.orelse, scope))
            case ast.Lambda():
                return Function(node, scope)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = dict(scope)
                results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                found = self._comprehension(node.generators, results, inner)
                return UNKNOWN if found is None else Items(tuple(found))
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._eval(child, scope)
                return UNKNOWN

    def _comprehension(
        self, generators: list[ast.comprehension], results: list[ast.expr], scope: Scope
    ) -> list[Value] | None:
        if not generators:
            return [self._eval(result, scope) for result in results]
        generator = generators[0]
        items = items_of(self._eval(generator.iter, scope))
        found: list[Value] = []
        for item in (UNKNOWN,) if items is None else items:
            self._bind(generator.target, item, scope)
            for condition in generator.ifs:
                self._eval(condition, scope)
            found += self._comprehension(generators[1:], results, scope) or []
        return None if items is None else found

    def _arguments(self, node: ast.Call, scope: Scope) -> Arguments:
        positional: list[Value] = []
        complete = True
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                spread = items_of(self._eval(argument.value, scope))
                positional += spread or ()
                complete = complete and spread is not None
            else:
                positional.append(self._eval(argument, scope))
        named = {each.arg: self._eval(each.value, scope) for each in node.keywords if each.arg is not None}
        for each in node.keywords:
            if each.arg is None:
                self._eval(each.value, scope)
                complete = False
        return Arguments(tuple(positional), named, complete)

    def _run_function(self, function: Function, arguments: Arguments) -> Value:
        """Run a function of this file and return its result. A recursive call is not followed."""
        node = function.node
        if node in self._running:
            return UNKNOWN
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
            if given is None and arguments.complete and each.arg in defaults:
                given = self._eval(defaults[each.arg], scope)
            scope[each.arg] = given or UNKNOWN
        if node.args.vararg:
            rest = arguments.positional[len(ordered) :]
            scope[node.args.vararg.arg] = Items(rest) if arguments.complete else UNKNOWN
        if node.args.kwarg:
            scope[node.args.kwarg.arg] = UNKNOWN
        self._running.append(node)
        self._returned.append([])
        try:
            if isinstance(node, ast.Lambda):
                return self._eval(node.body, scope)
            self._body(node.body, scope)
        finally:
            self._running.pop()
            returned = self._returned.pop()
        result = returned[0] if returned else NONE
        for other in returned[1:]:
            result = merge(result, other)
        return result

    def _call(self, node: ast.Call, scope: Scope) -> Value:  # noqa: PLR0911 - one case for each kind
        function = self._eval(node.func, scope)
        arguments = self._arguments(node, scope)
        match function:
            case Function():
                return self._run_function(function, arguments)
            case Method(owner=Text() as text, name=name):
                return text if name in _TEXT_METHODS else UNKNOWN
            case Method(owner=Pairs(items=pairs), name=name):
                position = {"keys": 0, "values": 1}.get(name)
                columns = pairs if position is None else tuple(pair.items[position] for pair in pairs)
                return Items(columns) if name in ("keys", "values", "items") else UNKNOWN
            case Method(owner=Statement() as statement):
                return statement
            case Method(owner=Table(name=table), name=name) if name in STATEMENTS:
                return Statement(name, table)
            case Method(owner=Items(), name=name) if isinstance(node.func, ast.Attribute):
                self._bind(node.func, UNKNOWN, scope)
                return UNKNOWN
        return self._call_external(function, arguments, node)


def _import(alias: ast.alias, scope: Scope) -> None:
    if alias.name == "alembic.op" and alias.asname:
        scope[alias.asname] = DatabaseHandle("op")
    elif alias.name.partition(".")[0] == "alembic" and (not alias.asname or alias.name == "alembic"):
        scope[alias.asname or "alembic"] = DatabaseHandle("alembic")
    else:
        scope[alias.asname or alias.name.partition(".")[0]] = UNKNOWN


def _import_from(node: ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        if node.module == "alembic" and not node.level:
            scope[name] = get_attribute(DatabaseHandle("alembic"), alias.name)
        elif node.module == "alembic.op" and not node.level:
            scope[name] = Method(DatabaseHandle("op"), alias.name)
        else:
            scope[name] = UNKNOWN


def _forget(loop: ast.AST, scope: Scope) -> None:
    """Make the names that a loop assigns unknown, because it is not known how often the loop runs."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope[node.id] = UNKNOWN


def _restore(added: Additions, to: Additions) -> None:
    copy = to.copy()
    added.tables, added.columns, added.indexes = copy.tables, copy.columns, copy.indexes
