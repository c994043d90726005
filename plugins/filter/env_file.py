# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: env_file
short_description: Render settings as an environment file
version_added: 0.1.0
description:
  - Renders a dictionary as lines of C(NAME="value"), in a form that systemd's C(EnvironmentFile=) and a POSIX shell
    parse identically, see systemd.exec(5) and section 2.2.3 of the POSIX shell language.
  - Fails on an invalid variable name, and on a value with a line break or a NUL.
author:
  - aapanel.pipeline contributors (@aapanel)
options:
  _input:
    description:
      - The settings. Booleans become V(true) and V(false), null values are omitted.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the settings of a service
  ansible.builtin.copy:
    content: "{{ {'PORT': 5001, 'GREETING': 'say \"hello\"'} | aapanel.pipeline.env_file }}"
    dest: /etc/example.env
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The lines, sorted by name.
  type: str
  sample: |-
    GREETING="say \"hello\""
    PORT="5001"
"""

import re
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Special characters between double quotes, for systemd and for the shell.
_SPECIAL = re.compile(r'(["\\`$])')


def env_file(settings: Mapping[str, object]) -> str:
    """Render settings as an environment file.

    :raises AnsibleFilterError: a name or a value is invalid; the message omits the value, which may be secret.
    """
    lines = []
    for name, value in sorted(settings.items()):
        if value is None:
            continue
        if not _NAME.match(name):
            raise AnsibleFilterError(f"{name!r} is not a valid environment variable name: use letters, digits and _")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if any(character in text for character in "\n\r\0"):
            raise AnsibleFilterError(
                f"the value of {name} contains a line break or a NUL, which an environment file cannot; remove it"
            )
        escaped = _SPECIAL.sub(r"\\\1", text)
        lines.append(f'{name}="{escaped}"')
    return "\n".join(lines)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters of this file by name."""
        return {"env_file": env_file}
