# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the command line: ``python -m aapanel_runtime``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
