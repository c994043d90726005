#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_info
short_description: Tell what kind of machine a host is and which features it can have
version_added: 0.1.0
description:
  - Finds out what a host is (a Replit machine, a CI runner, a container, a rented server or a machine of one's own),
    at which provider it stands, what the connecting user can do on it, and which features of this collection
    follow from that.
  - Reads files below C(/proc), C(/sys), C(/run) and C(/etc), and asks the Docker socket once. It needs no root,
    changes nothing, and treats a file that it cannot read as one that is not there.
  - The answer is for the user that the task runs as. Run it with C(become) where the roles run with C(become).
  - What wins, first match, is O(kind), then the variable E(AAPANEL_ENVIRONMENT_KIND) on the target, Replit's
    variables or C(/run/replit), a named CI system's variable, the traces of a container manager (systemd inside or
    not), a provider known by DMI or a hypervisor that is not a desktop's own, and at last V(local). WSL is V(local).
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
options:
  kind:
    description:
      - States the kind instead of finding it out. V(auto) finds it out.
    type: str
    choices: [auto, replit, ci, container, vps, local]
    default: auto
  provider:
    description:
      - States the provider instead of finding it out, for example V(hetzner). V(auto) finds it out.
    type: str
    default: auto
  capabilities:
    description:
      - States single capabilities instead of finding them out. Those left out are found out.
    type: dict
    default: {}
    suboptions:
      root:
        description: Whether the task may do everything on the host.
        type: bool
      systemd:
        description: Whether systemd is pid 1.
        type: bool
      cron:
        description: Whether there is a C(crontab), and a cron runs that reads it.
        type: bool
      apt:
        description: Whether packages can be installed with apt.
        type: bool
      package_lists:
        description: Whether apt has lists of the packages there are, a day old at most; a new image often has none yet.
        type: bool
      netfilter:
        description: Whether firewall rules can be managed.
        type: bool
      docker:
        description: Whether a Docker engine answers.
        type: bool
      persistent_home:
        description: Whether files in the home folder outlast a restart of the host.
        type: bool
      user_namespaces:
        description: Whether the user may create user namespaces.
        type: bool
  features:
    description:
      - Wishes, by name of a feature of RV(features). V(auto) has it where the host can, V(true) demands it,
        V(false) does without. For V(service) the wishes are V(auto), V(systemd) and V(supervisor), for V(schedule)
        they are V(auto), V(systemd) and V(cron).
      - A wish that cannot be fulfilled does not fail this module; it is told in RV(problems).
    type: dict
    default: {}
  features_variable:
    description:
      - What RV(problems) call O(features), the name of the variable that the user set.
    type: str
    default: features
  root:
    description:
      - Folder that holds the tree to look at. Anything but V(/) is for tests with recorded trees.
    type: path
    default: /
seealso:
  - module: aapanel.pipeline.preflight
"""

EXAMPLES = r"""
- name: Find out what this host is
  aapanel.pipeline.environment_info:
  register: host_environment

- name: Show what is switched off, and why
  ansible.builtin.debug:
    msg: >-
      {{ host_environment.features | dict2items | rejectattr('value.reason', 'equalto', '')
      | map(attribute='value.reason') }}

- name: Treat a dedicated server as what it is, and insist on nginx
  aapanel.pipeline.environment_info:
    kind: vps
    provider: ovh
    features:
      nginx: true
      redis: false
"""

RETURN = r"""
kind:
  description: What the host is, one of V(replit), V(ci), V(container), V(vps) and V(local).
  returned: success
  type: str
  sample: vps
flavor:
  description:
    - Which one of its kind. V(workspace) or V(deployment) on Replit; the CI system, for example V(github_actions);
      V(docker), V(podman), V(lxc), V(kubernetes), V(openvz), V(nspawn) or V(other) for a container; the hypervisor of
      a server whose provider is unknown; V(bare_metal) or V(wsl) for a local machine.
    - Null when nothing more is known.
  returned: success
  type: str
  sample: docker
provider:
  description:
    - Who rents out the hardware; V(digitalocean), V(hetzner), V(ovh), V(linode), V(vultr), V(ec2), V(gce), V(azure),
      or what O(provider) said. Containers and CI runners can have one, too. Null when unknown.
  returned: success
  type: str
  sample: hetzner
capabilities:
  description: What the user of this task can do on the host.
  returned: success
  type: dict
  sample:
    root: true
    systemd: true
    cron: true
    apt: true
    package_lists: true
    netfilter: true
    docker: false
    persistent_home: true
    user_namespaces: true
cpus:
  description: Processors that a service may use; quotas and limits of the container are counted in.
  returned: success
  type: int
  sample: 2
memory_mb:
  description: Memory in MiB that a service may use; limits of the container are counted in, swap is not. Can be null.
  returned: success
  type: int
  sample: 3915
packages:
  description: Names of the Debian packages that are installed; empty where dpkg manages nothing.
  returned: success
  type: list
  elements: str
  sample: [adduser, apt, base-files]
overridden:
  description: Whether anything was stated instead of found out.
  returned: success
  type: bool
  sample: false
evidence:
  description: What each verdict stands on. Holds no host name, serial number or value of an environment variable.
  returned: success
  type: list
  elements: dict
  contains:
    verdict:
      description: The verdict, C(name=value).
      type: str
    source:
      description: The file, variable or argument.
      type: str
    value:
      description: What was found there.
      type: str
  sample:
    - verdict: provider=hetzner
      source: /sys/class/dmi/id/sys_vendor
      value: Hetzner
features:
  description:
    - Decision per feature; C(enabled), C(reason) (empty when the feature is on at its best), and C(value) for
      C(service), V(systemd) or V(supervisor), and for C(schedule), V(systemd) or V(cron).
  returned: success
  type: dict
  sample:
    service:
      enabled: true
      reason: ""
      value: systemd
    nginx:
      enabled: false
      reason: needs root (become) to bind port 80 and write /etc/nginx
problems:
  description:
    - Wishes of O(features) that make no sense or cannot be fulfilled.
    - Meant for O(aapanel.pipeline.preflight#module:problems).
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.detect import (
    CAPABILITIES,
    KINDS,
    Overrides,
    describe,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import DetectionError, Host


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": ["auto", *KINDS], "default": "auto"},
            "provider": {"type": "str", "default": "auto"},
            "capabilities": {
                "type": "dict",
                "default": {},
                "options": {name: {"type": "bool"} for name in CAPABILITIES},
            },
            "features": {"type": "dict", "default": {}},
            "features_variable": {"type": "str", "default": "features"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    stated = {name: value for name, value in module.params["capabilities"].items() if value is not None}
    overrides = Overrides(
        kind=None if module.params["kind"] == "auto" else module.params["kind"],
        provider=None if module.params["provider"] == "auto" else module.params["provider"],
        capabilities=stated,
    )
    try:
        result = describe(
            Host(module.params["root"]), overrides, module.params["features"], module.params["features_variable"]
        )
    except DetectionError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
