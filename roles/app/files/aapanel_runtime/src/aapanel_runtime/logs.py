# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This package's own log. The root logger and the application's loggers are the application's business."""

from __future__ import annotations

import logging
import sys

from .settings import BaseSettings

LOGGER_NAME = "aapanel_runtime"


def set_up(settings: BaseSettings) -> None:
    """Send this package's messages to standard error as ``LOG_LEVEL`` and ``LOG_TO_CONSOLE`` say. Safe to repeat."""
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(settings.log_level)
    # Handlers that the application put on the root logger would print every message a second time.
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    if settings.log_to_console:
        console = logging.StreamHandler(sys.stderr)
        # The journal adds the time and the process.
        console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(console)
    else:
        logger.addHandler(logging.NullHandler())


def silence() -> None:
    """Keep this package's messages out of a command's answer."""
    logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())
    logging.getLogger(LOGGER_NAME).propagate = False
