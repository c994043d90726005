# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the application of ``AAPANEL_APP``."""

from __future__ import annotations

import importlib
import os
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

from ..problems import Problem, SettingsError
from ..settings import BaseSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def load(settings: BaseSettings) -> WSGIApplication:
    """Import the application, after changing to ``AAPANEL_HOME``.

    Errors of the application's own modules are not caught, because their traceback explains them.

    :raises SettingsError: the folder, module or attribute does not exist.
    """
    if settings.aapanel_home:
        _change_to(settings.aapanel_home)
    module_name, _, attribute = settings.aapanel_app.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Another missing module is an import of the application.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        what = f"names module {module_name}, which does not exist in {os.getcwd()}."  # noqa: PTH109 - as text
        raise _invalid("AAPANEL_APP", what, "Set AAPANEL_HOME to the folder of the module.") from error
    path = attribute.removesuffix("()")
    try:
        found: Any = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        what = f"names {attribute}, which does not exist in module {module_name}."
        raise _invalid("AAPANEL_APP", what, "Set it to module:attribute.") from error
    if attribute.endswith("()"):
        found = found()
    if not callable(found):
        raise _invalid("AAPANEL_APP", f"names {attribute}, which is not callable.", "Set it to a WSGI application.")
    return cast("WSGIApplication", found)


def _change_to(home: str) -> None:
    try:
        os.chdir(home)
    except OSError as error:
        what = f"{home!r} cannot be entered: {error.strerror}."
        raise _invalid("AAPANEL_HOME", what, "Set it to a folder that the user of the service can read.") from error
    if home not in sys.path:
        sys.path.insert(0, home)


def _invalid(name: str, what: str, cure: str) -> SettingsError:
    return SettingsError([Problem(name, what, cure)])
