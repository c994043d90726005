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
  - Compares a host with what the roles demand of it (system, ports, disk, memory), adds the problems that were found
    on the controller, and fails with one message that lists B(all) of them.
  - Reads only, in check mode and out of it. Needs no root; without it, a process that holds a port is named
    by its user alone when it belongs to somebody else.
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
      - Systems that are supported. Left empty, any system will do.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: C(ID) of C(/etc/os-release), for example V(debian).
        type: str
        required: true
      versions:
        description: Accepted values of C(VERSION_ID). Left empty, all are.
        type: list
        elements: str
        default: []
      tested:
        description: Whether the collection is tested there. Where it is not, there is a warning.
        type: bool
        default: true
  ports:
    description:
      - TCP ports that have to be free.
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
          - The IP address that will be bound, or V(localhost). Left out, all of them.
          - A listener on V(::) counts for IPv4 as well; the kernel does not tell whether it does.
        type: str
        default: ""
      used_for:
        description: What the port is for, in the words of the user.
        type: str
        required: true
      allowed:
        description:
          - Names of processes (C(ps -o comm)), or words of their command lines, that may hold the port already, because
            they are ours.
        type: list
        elements: str
        default: []
      variable:
        description: The variable that sets the port, for the message.
        type: str
        default: ""
  disk:
    description:
      - Space that has to be free. What is demanded of one file system is added up.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder; the nearest parent that exists is measured.
        type: path
        required: true
      free_mb:
        description: MiB that have to be free for an ordinary user.
        type: int
        required: true
      used_for:
        description: What the space is for, in the words of the user.
        type: str
        required: true
      variable:
        description: The variable that sets the path, for the message.
        type: str
        default: ""
  memory_mb:
    description:
      - MiB of memory that a service has to be able to use; limits of a container count, swap does not.
      - The kernel keeps some for itself, so a machine sold with 1 GB shows about 950.
    type: int
    default: 0
  root:
    description:
      - Folder that holds the tree to look at. Anything but V(/) is for tests with recorded trees.
    type: path
    default: /
seealso:
  - module: aapanel.pipeline.environment_info
  - plugin: aapanel.pipeline.panel_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse a host that cannot serve the panel
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
  description: What stands in the way, one sentence each with its cure. Also in RV(msg), numbered.
  returned: always
  type: list
  elements: str
  sample:
    - port 80 (for nginx) is held by apache2 (pid 123); stop it or set nginx_http_port
warnings:
  description: What does not stand in the way, but deserves a word, for example an untested system.
  returned: when there are any
  type: list
  elements: str
  sample:
    - Ubuntu 24.04.3 LTS should work, but is not tested; tested are debian 12/13
os:
  description: The system that was found, from C(/etc/os-release); empty strings where that does not say.
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
    Demands,
    DiskDemand,
    PortDemand,
    PreflightError,
    Supported,
    check,
)


def _demands(params: dict[str, Any]) -> Demands:
    return Demands(
        problems=tuple(params["problems"]),
        supported=tuple(Supported(row["id"], tuple(row["versions"]), row["tested"]) for row in params["supported"]),
        ports=tuple(PortDemand(**{**row, "allowed": tuple(row["allowed"])}) for row in params["ports"]),
        disk=tuple(DiskDemand(**row) for row in params["disk"]),
        memory_mb=params["memory_mb"],
    )


def main() -> None:
    """Entry point of the module."""
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
        verdict = check(Host(module.params["root"]), _demands(module.params))
    except PreflightError as error:
        module.fail_json(msg=str(error))
    for warning in verdict.warnings:
        module.warn(warning)
    result = {"problems": verdict.problems, "os": verdict.os}
    if verdict.problems:
        module.fail_json(msg=verdict.message(), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
