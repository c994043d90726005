# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configures the logger of the runtime. The root logger and the loggers of the application are not changed."""

from __future__ import annotations

import logging
import sys

from ..settings import BaseSettings

LOGGER_NAME = "aapanel_runtime"


def set_up(settings: BaseSettings) -> None:
    """Log to standard error according to ``LOG_LEVEL`` and ``LOG_TO_CONSOLE``. May be called again."""
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(settings.log_level)
    # Handlers of the application on the root logger would write each message a second time.
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    if settings.log_to_console:
        console = logging.StreamHandler(sys.stderr)
        # Without time and process, which the journal adds.
        console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(console)
    else:
        logger.addHandler(logging.NullHandler())


def silence() -> None:
    """Discard the messages of the runtime, so that they do not mix with the output of a command."""
    logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())
    logging.getLogger(LOGGER_NAME).propagate = False
