#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Refuse an unfit host before anything is changed
version_added: 0.1.0
description:
  - Compares a host with the requirements of the roles (system, ports, disk, memory), adds the problems that were found
    on the controller, and fails with one message that lists B(all) of them.
  - Only reads, in check mode and in a normal run. It does not need root. Without root, a process of another user that
    holds a port is reported by the ID of that user.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
options:
  problems:
    description:
      - Problems that were found before, for example by P(aapanel.pipeline.panel_problems#filter) or in
        RV(aapanel.pipeline.environment_info#module:problems).
    type: list
    elements: str
    default: []
  supported:
    description:
      - Supported systems. If empty, every system is accepted.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: C(ID) of C(/etc/os-release), for example V(debian).
        type: str
        required: true
      versions:
        description: Accepted values of C(VERSION_ID). If empty, every version is accepted.
        type: list
        elements: str
        default: []
      tested:
        description: Whether the collection is tested on this system. If not, the module warns.
        type: bool
        default: true
  ports:
    description:
      - TCP ports that must be free.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      address:
        description:
          - The IP address to bind, or V(localhost). If empty, all addresses.
          - A listener on V(::) counts for IPv4 too, because the kernel does not report whether it accepts IPv4.
        type: str
        default: ""
      used_for:
        description: What the port is for, as shown to the user.
        type: str
        required: true
      allowed:
        description:
          - Processes that may already hold the port, because they belong to the panel. Names (C(ps -o comm)), or words
            of their command lines.
        type: list
        elements: str
        default: []
      variable:
        description: The variable that sets the port, for the message.
        type: str
        default: ""
  disk:
    description:
      - Required free disk space. Requirements on the same file system are added up.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder; the nearest parent that exists is measured.
        type: path
        required: true
      free_mb:
        description: MiB that must be free for an unprivileged user.
        type: int
        required: true
      used_for:
        description: What the space is for, as shown to the user.
        type: str
        required: true
      variable:
        description: The variable that sets the path, for the message.
        type: str
        default: ""
  memory_mb:
    description:
      - MiB of memory that must be usable by a service. Container limits count, swap does not.
      - The kernel reserves some memory, so a machine sold with 1 GB reports about 950.
    type: int
    default: 0
  root:
    description:
      - Root of the file tree to inspect. Values other than V(/) are for tests with recorded trees.
    type: path
    default: /
seealso:
  - module: aapanel.pipeline.environment_info
  - plugin: aapanel.pipeline.panel_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Check that the host can serve the panel
  aapanel.pipeline.preflight:
    supported:
      - id: debian
        versions: ["12", "13"]
      - id: ubuntu
        versions: ["22.04", "24.04"]
        tested: false
    ports:
      - port: 80
        used_for: nginx
        allowed: [nginx]
        variable: nginx_http_port
      - port: 5001
        address: 127.0.0.1
        used_for: the blue slot
        allowed: [gunicorn]
    disk:
      - path: /opt/aapanel
        free_mb: 1500
        used_for: releases
        variable: panel_base_dir
    memory_mb: 400
"""

RETURN = r"""
problems:
  description: The problems, one sentence each with its remedy. Also in RV(msg), numbered.
  returned: always
  type: list
  elements: str
  sample:
    - port 80 (for nginx) is held by apache2 (pid 123); stop it or set nginx_http_port
warnings:
  description: Findings that do not fail the check, for example an untested system.
  returned: when there are any
  type: list
  elements: str
  sample:
    - Ubuntu 24.04.3 LTS should work, but is not tested; tested systems: debian 12/13
os:
  description: The system, from C(/etc/os-release). Empty strings for fields that the file does not have.
  returned: always
  type: dict
  sample:
    id: debian
    name: Debian GNU/Linux 13 (trixie)
    version: "13"
msg:
  description: All problems in one message.
  returned: failure
  type: str
  sample: |-
    1 problem; nothing was changed:
      1. port 80 (for nginx) is held by apache2 (pid 123); stop it or set nginx_http_port
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._preflight.check import (
    DiskRequirement,
    HostRequirements,
    PortRequirement,
    PreflightError,
    Supported,
    check,
)


def _requirements(params: dict[str, Any]) -> HostRequirements:
    return HostRequirements(
        problems=tuple(params["problems"]),
        supported=tuple(Supported(row["id"], tuple(row["versions"]), row["tested"]) for row in params["supported"]),
        ports=tuple(PortRequirement(**{**row, "allowed": tuple(row["allowed"])}) for row in params["ports"]),
        disk=tuple(DiskRequirement(**row) for row in params["disk"]),
        memory_mb=params["memory_mb"],
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "problems": {"type": "list", "elements": "str", "default": []},
            "supported": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "id": {"type": "str", "required": True},
                    "versions": {"type": "list", "elements": "str", "default": []},
                    "tested": {"type": "bool", "default": True},
                },
            },
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int", "required": True},
                    "address": {"type": "str", "default": ""},
                    "used_for": {"type": "str", "required": True},
                    "allowed": {"type": "list", "elements": "str", "default": []},
                    "variable": {"type": "str", "default": ""},
                },
            },
            "disk": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "free_mb": {"type": "int", "required": True},
                    "used_for": {"type": "str", "required": True},
                    "variable": {"type": "str", "default": ""},
                },
            },
            "memory_mb": {"type": "int", "default": 0},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    try:
        found = check(Host(module.params["root"]), _requirements(module.params))
    except PreflightError as error:
        module.fail_json(msg=str(error))
    for warning in found.warnings:
        module.warn(warning)
    result = {"problems": found.problems, "os": found.os}
    if found.problems:
        module.fail_json(msg=found.message(), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
