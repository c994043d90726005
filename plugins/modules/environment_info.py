#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_info
short_description: Detect the kind of a host and the features that it supports
version_added: 0.1.0
description:
  - Detects the kind of a host (a Replit machine, a CI runner, a container, a rented server or a local machine), its
    provider, the capabilities of the connecting user, and the features of this collection that follow from them.
  - Reads files below C(/proc), C(/sys), C(/run) and C(/etc), and sends one request to the Docker socket. It does not
    need root, changes nothing, and treats unreadable files as missing.
  - The result applies to the user that the task runs as. Use C(become) if the roles use C(become).
  - The first match determines the kind. O(kind); the variable E(AAPANEL_ENVIRONMENT_KIND) on the target; Replit's
    variables or C(/run/replit); the variable of a known CI system; the files or variables of a container manager, with
    or without systemd; a provider known by DMI, or a hypervisor for servers on a host without a desktop; and V(local)
    otherwise. WSL is V(local).
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes.info
options:
  kind:
    description:
      - Kind of the host. V(auto) detects it.
    type: str
    choices: [auto, replit, ci, container, vps, local]
    default: auto
  provider:
    description:
      - Provider of the host, for example V(hetzner). V(auto) detects it.
    type: str
    default: auto
  capabilities:
    description:
      - Capabilities of the host. Missing ones are detected.
    type: dict
    default: {}
    suboptions:
      root:
        description: Whether the task runs as root.
        type: bool
      systemd:
        description: Whether systemd is pid 1.
        type: bool
      cron:
        description: Whether C(crontab) is installed and a cron daemon runs.
        type: bool
      apt:
        description: Whether packages can be installed with apt.
        type: bool
      package_lists:
        description: Whether apt has package lists that are at most a day old. New images often have none.
        type: bool
      netfilter:
        description: Whether firewall rules can be managed.
        type: bool
      docker:
        description: Whether a Docker engine answers.
        type: bool
      persistent_home:
        description: Whether files in the home folder survive a restart of the host.
        type: bool
      user_namespaces:
        description: Whether the user may create user namespaces.
        type: bool
  features:
    description:
      - Choices by feature of RV(features). V(auto) enables a feature if the host supports it, V(true) requires it,
        V(false) disables it. V(service) accepts V(auto), V(systemd) and V(supervisor), V(schedule) accepts V(auto),
        V(systemd) and V(cron).
      - A choice that is impossible on this host does not fail the module; it is reported in RV(problems).
    type: dict
    default: {}
  features_variable:
    description:
      - Name of the variable that the user set, used for O(features) in RV(problems).
    type: str
    default: features
  root:
    description:
      - Root of the file tree to inspect. Values other than V(/) are for tests with recorded trees.
    type: path
    default: /
seealso:
  - module: aapanel.pipeline.preflight
"""

EXAMPLES = r"""
- name: Detect the kind of this host
  aapanel.pipeline.environment_info:
  register: host_environment

- name: Show why features are disabled
  ansible.builtin.debug:
    msg: >-
      {{ host_environment.features | dict2items | rejectattr('value.reason', 'equalto', '')
      | map(attribute='value.reason') }}

- name: Declare a dedicated server, and require nginx
  aapanel.pipeline.environment_info:
    kind: vps
    provider: ovh
    features:
      nginx: true
      redis: false
"""

RETURN = r"""
kind:
  description: Kind of the host, one of V(replit), V(ci), V(container), V(vps) and V(local).
  returned: success
  type: str
  sample: vps
flavor:
  description:
    - Variant of the kind. V(workspace) or V(deployment) on Replit; the CI system, for example V(github_actions);
      V(docker), V(podman), V(lxc), V(kubernetes), V(openvz), V(nspawn) or V(other) for a container; the hypervisor of
      a server whose provider is unknown; V(bare_metal) or V(wsl) for a local machine.
    - Null if unknown.
  returned: success
  type: str
  sample: docker
provider:
  description:
    - Hosting provider. V(digitalocean), V(hetzner), V(ovh), V(linode), V(vultr), V(ec2), V(gce), V(azure), or the value
      of O(provider). Containers and CI runners can have a provider, too. Null if unknown.
  returned: success
  type: str
  sample: hetzner
capabilities:
  description: Capabilities of the task's user on the host.
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
  description: Number of processors that a service can use, with regard to quotas and container limits.
  returned: success
  type: int
  sample: 2
memory_mb:
  description: Memory in MiB that a service can use, with regard to container limits, without swap. Null if unknown.
  returned: success
  type: int
  sample: 3915
packages:
  description: Names of the installed Debian packages; empty on a host without dpkg.
  returned: success
  type: list
  elements: str
  sample: [adduser, apt, base-files]
overridden:
  description: Whether an option or E(AAPANEL_ENVIRONMENT_KIND) replaced a detected value.
  returned: success
  type: bool
  sample: false
evidence:
  description: Evidence for each verdict, without host names, serial numbers and values of environment variables.
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
      description: What the source contained.
      type: str
  sample:
    - verdict: provider=hetzner
      source: /sys/class/dmi/id/sys_vendor
      value: Hetzner
features:
  description:
    - Decision for each feature. C(enabled); C(reason), empty if the feature is on with its preferred value; and
      C(value) for C(service) (V(systemd) or V(supervisor)) and C(schedule) (V(systemd) or V(cron)).
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
    - Choices in O(features) that are invalid or impossible on this host.
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
    """Run the module."""
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
    capabilities = {name: value for name, value in module.params["capabilities"].items() if value is not None}
    overrides = Overrides(
        kind=None if module.params["kind"] == "auto" else module.params["kind"],
        provider=None if module.params["provider"] == "auto" else module.params["provider"],
        capabilities=capabilities,
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
