# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: N999  (the entry is called BTPanel:app in the panel that this one stands for)
"""A small web panel in the shape of the real one: what development, tests and benchmarks deploy. Entry: BTPanel:app."""

from __future__ import annotations

from . import faults

faults.at_import()

from .application import create_app  # noqa: E402  (a release that is to crash must do so before anything is opened)

app = create_app()
