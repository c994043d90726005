# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: N999  (aaPanel's entry point is BTPanel:app)
"""A small web panel modelled on aaPanel, for development, tests and benchmarks. Entry point: BTPanel:app."""

from __future__ import annotations

from . import faults

faults.at_import()

from .application import create_app  # noqa: E402  (import_error must be raised before anything is opened)

app = create_app()
