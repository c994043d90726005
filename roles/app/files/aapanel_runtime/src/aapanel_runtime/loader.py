# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the application that ``AAPANEL_APP`` names."""

from __future__ import annotations

import importlib
import os
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

from .problems import Problem, SettingsError
from .settings import BaseSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def load(settings: BaseSettings) -> WSGIApplication:
    """Import and return the application, from its home if it has one.

    What its modules raise on import is raised as it is: the traceback is the answer to "why".

    Raises:
        SettingsError: there is no such folder, module or attribute.
    """
    if settings.aapanel_home:
        _enter(settings.aapanel_home)
    module_name, _, attribute = settings.aapanel_app.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only if the module itself is missing, not one that it imports.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        what = f"names the module {module_name}, which is not found from {os.getcwd()}."  # noqa: PTH109 - as a text
        raise _refused("AAPANEL_APP", what, "Set AAPANEL_HOME to the folder that holds it.") from error
    path = attribute.removesuffix("()")
    try:
        found: Any = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        what = f"names {attribute}, which module {module_name} does not have."
        raise _refused("AAPANEL_APP", what, "Set it to module:attribute.") from error
    if attribute.endswith("()"):
        found = found()
    if not callable(found):
        raise _refused("AAPANEL_APP", f"names {attribute}, which is not callable.", "Set it to a WSGI application.")
    return cast("WSGIApplication", found)


def _enter(home: str) -> None:
    try:
        os.chdir(home)
    except OSError as error:
        what = f"{home!r} cannot be entered: {error.strerror}."
        raise _refused("AAPANEL_HOME", what, "Set it to a folder that the service's user may read.") from error
    if home not in sys.path:
        sys.path.insert(0, home)


def _refused(name: str, what: str, cure: str) -> SettingsError:
    return SettingsError([Problem(name, what, cure)])
