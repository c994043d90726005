#!/usr/bin/python
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Build an immutable release of an app
version_added: 0.1.0
description:
  - Fetches an app, builds its virtualenv with C(uv) and publishes both as C(releases/<id>) below O(base_dir); then
    removes old releases. All of it is one task.
  - The id is O(label) and a digest of everything that goes in (source, requirements, packages, overrides, runtime,
    Python, persistent paths), so the same input is the same release and builds nothing. Requirements without exact
    versions are resolved when the release is built, and stay as they were then.
  - A release gets its name by one rename after all of it has reached the disk. Whatever interrupts a build, half a
    release is never taken for a whole one; what it left is removed by the next run.
  - With root, a release belongs to root; those who run it can read it and not change it.
  - Installing packages runs their build scripts as the user of the task. Prefer requirements with hashes.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
attributes:
  check_mode:
    details:
      - Works on an empty host. Without git or the interpreter the id cannot be known, and is C(unknown until built).
  diff_mode:
    details:
      - Lists the releases before and after.
options:
  state:
    description:
      - V(present) builds the release unless it is there.
    type: str
    choices: [present]
    default: present
  base_dir:
    description:
      - Directory of the app, absolute. Holds C(releases), C(cache) and the lock; links in C(slots) say which releases
        are in use. It must not be writable by the user who runs the app.
    type: path
    required: true
  source:
    description:
      - Where the app comes from.
    type: dict
    required: true
    suboptions:
      type:
        description:
          - V(git) is a repository that the target can reach.
          - V(archive) is a tar or zip archive, at a URL or a path of the target. A single directory at its top is
            stripped.
          - V(path) is a directory of the controller; it is sent only when its release is not there yet. Left out are
            C(.git), C(.venv), C(__pycache__), C(*.pyc), C(node_modules) and the like.
          - V(auto) takes a location that ends like an archive for V(archive), one that ends in C(.git), is a URL or
            looks like C(user@host:path) for V(git), and all else for V(path).
        type: str
        choices: [auto, git, path, archive]
        default: auto
      location:
        description:
          - URL or path. Credentials in a URL are used, but appear nowhere.
        type: str
        required: true
      version:
        description:
          - Branch, tag, or commit (40 digits) of a repository; its default branch when left out.
        type: str
      commit:
        description:
          - Commit that O(source.version) stands for, 40 hexadecimal digits, as an earlier run returned it in
            RV(release.source). The branch or tag is not resolved again, so it may move between two runs.
        type: str
      checksum:
        description:
          - Checksum of an archive, V(sha256:) and 64 hexadecimal digits. Required for V(http) and V(https) URLs.
        type: str
      subdir:
        description:
          - Directory of the source that holds the app.
        type: str
      exclude:
        description:
          - What to leave out. A pattern without a slash is compared with names at any depth, one with a slash with the
            path below the app.
        type: list
        elements: str
        default: []
  requirements:
    description:
      - Requirements file inside the source. C(requirements.txt) is used if it exists. Hashes in it are verified.
    type: str
  packages:
    description:
      - More requirements, such as V(gevent>=24).
    type: list
    elements: str
    default: []
  overrides:
    description:
      - Requirements that beat the app's own, such as V(gunicorn==23.0.0). Where the app would have refused the version
        that is installed, that is reported in RV(overridden) and as a warning. They carry no hashes.
    type: list
    elements: str
    default: []
  runtime:
    description:
      - Directory of the controller with a Python project that is installed into the virtualenv.
    type: str
  runtime_extras:
    description:
      - Extras of O(runtime) to install.
    type: list
    elements: str
    default: []
  python:
    description:
      - Interpreter of the target for the virtualenv. The user in O(owner) must be able to run it.
    type: str
    default: python3
  uv:
    description:
      - Path of C(uv) on the target. The default is C(tools/bin/uv) below O(base_dir), then the C(PATH).
    type: path
  environment:
    description:
      - Environment for the commands of the build, such as V(https_proxy) or V(UV_INDEX_URL). Never logged.
    type: dict
    default: {}
  persistent_paths:
    description:
      - Files and directories of the app that outlive releases, relative. Each becomes a link to the same path below
        O(shared_dir), which gets the content of the first release that has it, and is never overwritten.
      - A path that the source lacks becomes an empty directory; if its name has a dot, it must end with a slash.
    type: list
    elements: str
    default: []
  shared_dir:
    description:
      - Where the persistent paths live, absolute. Required with O(persistent_paths).
    type: path
  shared_mode:
    description:
      - Mode of directories that are made for persistent paths, octal; files get it without the execute bits.
    type: str
    default: "0750"
  owner:
    description:
      - User who runs the app, and owns the persistent paths. Name or number.
    type: str
  group:
    description:
      - Group of the persistent paths. Defaults to the primary group of O(owner).
    type: str
  label:
    description:
      - First part of the id. Defaults to the branch or tag or the short commit, the name of the archive, or the first
        line of the file C(VERSION), or V(local).
    type: str
  keep:
    description:
      - How many releases stay, newest first. The current one, those in O(in_use) and those that a link in C(slots)
        leads to stay in any case.
    type: int
    default: 5
  in_use:
    description:
      - Ids, or paths, of releases that must stay.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds that one command of the build may take.
    type: int
    default: 1800
  lock_timeout:
    description:
      - Seconds to wait for another build below the same O(base_dir).
    type: int
    default: 600
  controller_trees:
    description:
      - Set by the action plugin, which replaces any other value. Tells what the directories of the controller hold, and
        where they are on the target.
    type: dict
    default: {}
notes:
  - The target needs C(uv), Python 3.10 or newer, and C(git) for repositories. It needs neither pip nor C(python3-venv).
  - A build leaves its whole output in C(cache/build-<id>.log) below O(base_dir), mode 0600.
  - Git LFS objects are not fetched.
  - All users of the host can read a release. Secrets belong in settings, not in the source.
"""

EXAMPLES = r"""
- name: Build a release of a tag
  aapanel.pipeline.release:
    base_dir: /opt/aapanel
    source:
      location: https://git.example.com/panel.git
      version: v7.0.26
    overrides: [gunicorn==23.0.0]
    persistent_paths: [data, logs]
    shared_dir: /var/lib/aapanel/shared
    owner: www
  register: release

- name: Put it into the idle slot
  ansible.builtin.file:
    src: "{{ release.release.path }}"
    dest: /opt/aapanel/slots/green
    state: link

- name: Build a release of a directory of the controller, with its runtime
  aapanel.pipeline.release:
    base_dir: /opt/aapanel
    source:
      location: ./panel
      exclude: [docs, /tests]
    runtime: "{{ role_path }}/files/aapanel_runtime"
    runtime_extras: [postgresql]
    environment:
      https_proxy: "{{ proxy_url }}"

- name: Build a release of an archive that was looked at
  aapanel.pipeline.release:
    base_dir: /opt/aapanel
    source:
      location: https://files.example.com/panel-7.0.26.tar.gz
      checksum: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
      subdir: src
"""

RETURN = r"""
release:
  description: The release, as it is or would be. What its C(release.json) says, and where its parts are.
  returned: success
  type: dict
  contains:
    id:
      description:
        - Name of its directory.
        - C(unknown until built) in check mode where it cannot be known; the paths are made of that then.
      returned: success
      type: str
      sample: v7.0.26-0f343b0931ca
    path:
      description: Its directory, for a slot to link to.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca
    app:
      description: The app in it.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca/app
    venv:
      description: The virtualenv in it.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca/venv
    label:
      description: First part of the id.
      returned: success
      type: str
      sample: v7.0.26
    digest:
      description: Digest of all that went in; its first 12 digits are the second part of the id.
      returned: success
      type: str
      sample: sha256:0f343b0931ca126a20f133d67c2b018a3b5b1b4b1f6fdc5b9d5f7b8a1c7a2b11
    source:
      description: Where the app came from, without credentials; the commit, of a repository.
      returned: success
      type: dict
      sample:
        type: git
        location: https://git.example.com/panel.git
        version: v7.0.26
        commit: 8243dad5bb8d8e1d4c3e49e7c8e308c5faf7b65e
    created:
      description: When it was built, UTC.
      returned: when the release exists
      type: str
      sample: "2026-01-31T12:00:00.000000+00:00"
    python:
      description: Version of its interpreter.
      returned: success
      type: str
      sample: 3.13.5
    packages:
      description: The O(packages) that it was built with.
      returned: success
      type: list
      elements: str
      sample: [gevent>=24]
    overrides:
      description: The O(overrides) that it was built with.
      returned: success
      type: list
      elements: str
      sample: [gunicorn==23.0.0]
    overridden:
      description: See RV(overridden).
      returned: when the release exists
      type: list
      elements: dict
      sample: [{name: gunicorn, app_wanted: "==20.1.0", installed: 23.0.0}]
    runtime:
      description: Digest of the O(runtime), empty without one.
      returned: success
      type: str
      sample: ""
    persistent_paths:
      description: The paths of the app that are links into O(shared_dir).
      returned: success
      type: list
      elements: str
      sample: [data, logs]
built:
  description: Whether the release was built, or would be.
  returned: success
  type: bool
  sample: true
steps:
  description: The steps of the build and how long they took. Empty when nothing was built.
  returned: success
  type: list
  elements: dict
  sample: [{name: fetch, seconds: 1.2}, {name: requirements, seconds: 40.3}]
overridden:
  description: What the app asked for and did not get, because of O(overrides).
  returned: success
  type: list
  elements: dict
  sample: [{name: gunicorn, app_wanted: "==20.1.0", installed: 23.0.0}]
pruned:
  description: Old releases, and remains of interrupted builds, that were removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [v7.0.20-5891b5b522d5]
seeded:
  description: Persistent paths that got their first content, or would.
  returned: success
  type: list
  elements: str
  sample: [data, logs]
step:
  description:
    - The step that failed, one of V(fetch), V(virtualenv), V(runtime), V(requirements), V(compile), V(persist) and
      V(publish).
    - Empty when the arguments are at fault.
  returned: failure
  type: str
  sample: requirements
command:
  description: The command that failed, credentials masked.
  returned: failure
  type: str
  sample: /opt/aapanel/tools/bin/uv pip install -r requirements.txt
output:
  description: The last 30 lines of that command.
  returned: failure
  type: list
  elements: str
  sample: ["error: No solution found when resolving dependencies"]
log:
  description: Where the whole output of the build is.
  returned: failure
  type: str
  sample: /opt/aapanel/cache/build-v7.0.26-0f343b0931ca.log
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import build, source, tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present"], "default": "present"},
    "base_dir": {"type": "path", "required": True},
    "source": {
        "type": "dict",
        "required": True,
        "options": {
            "type": {"type": "str", "choices": ["auto", *source.TYPES], "default": "auto"},
            "location": {"type": "str", "required": True, "no_log": True},
            "version": {"type": "str"},
            "commit": {"type": "str"},
            "checksum": {"type": "str"},
            "subdir": {"type": "str"},
            "exclude": {"type": "list", "elements": "str", "default": []},
        },
    },
    "requirements": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "overrides": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "runtime": {"type": "str"},
    "runtime_extras": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "str", "default": "python3"},
    "uv": {"type": "path"},
    "environment": {"type": "dict", "default": {}, "no_log": True},
    "persistent_paths": {"type": "list", "elements": "str", "default": []},
    "shared_dir": {"type": "path"},
    "shared_mode": {"type": "str", "default": "0750"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "label": {"type": "str"},
    "keep": {"type": "int", "default": 5},
    "in_use": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 1800},
    "lock_timeout": {"type": "int", "default": 600},
    "controller_trees": {"type": "dict", "default": {}},
}


def to_request(params: dict[str, Any]) -> build.Request:
    """Turn the arguments into a request.

    :raises ReleaseError: one of them cannot be meant.
    """
    given = params["source"]
    kind = source.classify(given["type"], given["location"])
    try:
        shared_mode = int(params["shared_mode"], 8)
    except ValueError:
        raise ReleaseError(f'shared_mode: {params["shared_mode"]!r} must be octal digits in quotes, "0750".') from None
    return build.Request(
        base_dir=Path(params["base_dir"]),
        source=source.Source(
            kind,
            given["location"],
            given["version"] or "",
            given["checksum"] or "",
            given["subdir"] or "",
            tuple(given["exclude"]),
            given["commit"] or "",
        ),
        content=_tree(params["controller_trees"].get("source")),
        requirements=params["requirements"] or "",
        packages=tuple(params["packages"]),
        overrides=tuple(params["overrides"]),
        runtime=_tree(params["controller_trees"].get("runtime")) or _local_tree(params["runtime"]),
        runtime_extras=tuple(params["runtime_extras"]),
        python=params["python"],
        uv=params["uv"] or "",
        environment={name: str(value) for name, value in params["environment"].items()},
        persistent_paths=tuple(params["persistent_paths"]),
        shared_dir=Path(params["shared_dir"]) if params["shared_dir"] else None,
        shared_mode=shared_mode,
        owner=params["owner"] or "",
        group=params["group"] or "",
        label=params["label"] or "",
        keep=params["keep"],
        in_use=tuple(params["in_use"]),
        timeout=params["timeout"],
        lock_timeout=params["lock_timeout"],
    )


def _tree(given: dict[str, str] | None) -> source.Tree | None:
    if not given:
        return None
    path, archive = given.get("path"), given.get("archive")
    return source.Tree(given["digest"], Path(path) if path else None, Path(archive) if archive else None)


def _local_tree(path: str | None) -> source.Tree | None:
    return source.Tree(tree.digest(Path(path), tree.DEFAULT_EXCLUDE), Path(path)) if path else None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    invocation = {"module_args": {**module.params, "environment": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"}}
    try:
        request = to_request(module.params)
        # Without this every value of the environment would be blotted out of the result: a "1" out of ids and times.
        # What is left are the true secrets.
        module.no_log_values = build.secrets(request)
        releaser = build.Releaser(request)
        plan = releaser.decide(tolerant=module.check_mode)
        if not module.check_mode:
            needs = releaser.missing_content(plan)
            if needs:
                module.exit_json(changed=False, needs=needs, invocation=invocation)
            plan = releaser.carry_out(plan)
        result = releaser.report(plan, done=not module.check_mode)
    except ReleaseError as exc:
        where = f"The release failed in step {exc.step}: " if exc.step else ""
        log = f" The whole output is in {exc.log}." if exc.log else ""
        module.fail_json(
            msg=f"{where}{exc.message}{log}",
            step=exc.step,
            command=exc.command,
            output=exc.output,
            log=exc.log,
            invocation=invocation,
        )
    except OSError as exc:
        where = exc.filename or module.params["base_dir"]
        module.fail_json(msg=f"base_dir: {where}: {exc.strerror or exc}.", invocation=invocation)
    if result["built"]:
        for item in result["overridden"]:
            module.warn(f"{item['name']} {item['installed']} is installed; the app asks for {item['app_wanted']}.")
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
