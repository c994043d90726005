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
  - Fetches an app, builds its virtualenv with C(uv), publishes both as C(releases/<id>) below O(base_dir), and removes
    old releases, in one task.
  - The ID is O(label) and a digest of all inputs (source, requirements, packages, overrides, runtime, Python,
    persistent paths), so the same inputs are the same release and build nothing. Requirements without exact versions
    are resolved when the release is built, and then stay fixed.
  - A release is renamed to its final name after all of it is on disk. An interrupted build is never used as a release;
    the next run removes its remains.
  - If the task runs as root, a release belongs to root; the app's user can read it, but not change it.
  - Installing packages runs their build scripts as the user of the task. Prefer requirements with hashes.
author:
  - aapanel.pipeline contributors (@aapanel)
extends_documentation_fragment:
  - aapanel.pipeline.attributes
attributes:
  check_mode:
    details:
      - Works on an empty host. Without git or the interpreter, the ID is C(unknown until built).
  diff_mode:
    details:
      - Shows the releases before and after.
options:
  state:
    description:
      - V(present) builds the release unless it exists.
    type: str
    choices: [present]
    default: present
  base_dir:
    description:
      - Directory of the app, absolute. Contains C(releases), C(cache) and the lock. Releases that C(slots) link to are
        in use. The user who runs the app must not be able to write to it.
    type: path
    required: true
  source:
    description:
      - Source of the app.
    type: dict
    required: true
    suboptions:
      type:
        description:
          - V(git) is a repository that the target can reach.
          - V(archive) is a tar or zip archive, at a URL or a path of the target. A single top-level directory is
            stripped.
          - V(path) is a directory of the controller; it is sent only if its release does not exist yet. Excludes
            C(.git), C(.hg), C(.svn), C(.venv), C(__pycache__), C(*.pyc), C(node_modules), and the caches of mypy,
            pytest and ruff.
          - V(auto) selects V(archive) for a location with the suffix of an archive; V(git) for one that ends in
            C(.git), is a URL or looks like C(user@host:path); and V(path) for all others.
        type: str
        choices: [auto, git, path, archive]
        default: auto
      location:
        description:
          - URL or path. Credentials in a URL are masked in results and logs.
        type: str
        required: true
      version:
        description:
          - Branch, tag, or commit (40 digits) of a repository. By default, its default branch.
        type: str
      commit:
        description:
          - Commit of O(source.version), 40 hexadecimal digits, as returned in RV(release.source) by an earlier run. The
            branch or tag is then not resolved again, so it may move between the runs.
        type: str
      checksum:
        description:
          - Checksum of an archive, V(sha256:) and 64 hexadecimal digits. Required for V(http) and V(https) URLs.
        type: str
      subdir:
        description:
          - Directory of the app inside the source.
        type: str
      exclude:
        description:
          - Patterns of files to exclude. A pattern without a slash matches names at any depth, one with a slash matches
            the path below the app.
        type: list
        elements: str
        default: []
  requirements:
    description:
      - Requirements file inside the source. By default, C(requirements.txt) if it exists. Hashes in it are verified.
    type: str
  packages:
    description:
      - Additional requirements, such as V(gevent>=24).
    type: list
    elements: str
    default: []
  overrides:
    description:
      - Requirements that replace the app's own, such as V(gunicorn==23.0.0). If the installed version does not satisfy
        the app's requirement, it is reported in RV(overridden) and as a warning. Overrides have no hashes.
    type: list
    elements: str
    default: []
  runtime:
    description:
      - Directory of the controller with a Python project to install into the virtualenv.
    type: str
  runtime_extras:
    description:
      - Extras of O(runtime) to install.
    type: list
    elements: str
    default: []
  python:
    description:
      - Python interpreter of the target for the virtualenv. The user in O(owner) must be able to run it.
    type: str
    default: python3
  uv:
    description:
      - Path of C(uv) on the target. By default, C(tools/bin/uv) below O(base_dir), otherwise C(uv) in the C(PATH).
    type: path
  environment:
    description:
      - Environment of the build's commands, such as V(https_proxy) or V(UV_INDEX_URL). It is not logged.
    type: dict
    default: {}
  persistent_paths:
    description:
      - Relative paths of files and directories that outlive releases. Each becomes a link to the same path below
        O(shared_dir), which gets the content from the first release with that path, and is never overwritten.
      - A path that is missing in the source becomes an empty directory; if its name has a dot, add a trailing slash.
    type: list
    elements: str
    default: []
  shared_dir:
    description:
      - Absolute path of the directory for persistent paths. Required with O(persistent_paths).
    type: path
  shared_mode:
    description:
      - Octal mode of created persistent directories; files get it without the execute bits.
    type: str
    default: "0750"
  owner:
    description:
      - Name or number of the user who runs the app, and owns the persistent paths.
    type: str
  group:
    description:
      - Group of the persistent paths. Defaults to the primary group of O(owner).
    type: str
  label:
    description:
      - First part of the ID. By default, the branch, tag or short commit of a repository; the name of an archive; the
        first line of the file C(VERSION) of a directory, or V(local).
    type: str
  keep:
    description:
      - Number of releases to keep, newest first. The current one, those in O(in_use) and those that C(slots) link to
        are always kept.
    type: int
    default: 5
  in_use:
    description:
      - IDs or paths of releases to keep.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds that each command of the build may take.
    type: int
    default: 1800
  lock_timeout:
    description:
      - Seconds to wait for another build below the same O(base_dir).
    type: int
    default: 600
  controller_trees:
    description:
      - Set by the action plugin, which replaces any other value. Digests of the directories of the controller, and
        their locations on the target.
    type: dict
    default: {}
notes:
  - The target needs C(uv), Python 3.10 or newer, and C(git) for repositories. It needs neither pip nor C(python3-venv).
  - The output of a build is logged to C(cache/build-<id>.log) below O(base_dir), mode 0600.
  - Git LFS objects are not fetched.
  - All users of the host can read a release. Put secrets into settings, not into the source.
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

- name: Link the idle slot to the release
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

- name: Build a release of an archive with a known checksum
  aapanel.pipeline.release:
    base_dir: /opt/aapanel
    source:
      location: https://files.example.com/panel-7.0.26.tar.gz
      checksum: sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
      subdir: src
"""

RETURN = r"""
release:
  description: The release, with the content of its C(release.json) and the paths of its parts.
  returned: success
  type: dict
  contains:
    id:
      description:
        - ID of the release, the name of its directory.
        - C(unknown until built) in check mode if it cannot be determined; the paths then contain this text.
      returned: success
      type: str
      sample: v7.0.26-0f343b0931ca
    path:
      description: Directory of the release, for a slot to link to.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca
    app:
      description: Directory of the app.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca/app
    venv:
      description: Directory of the virtualenv.
      returned: success
      type: str
      sample: /opt/aapanel/releases/v7.0.26-0f343b0931ca/venv
    label:
      description: First part of the ID.
      returned: success
      type: str
      sample: v7.0.26
    digest:
      description: Digest of all inputs; its first 12 digits are the second part of the ID.
      returned: success
      type: str
      sample: sha256:0f343b0931ca126a20f133d67c2b018a3b5b1b4b1f6fdc5b9d5f7b8a1c7a2b11
    source:
      description: Source of the app, without credentials. For a repository, with the commit.
      returned: success
      type: dict
      sample:
        type: git
        location: https://git.example.com/panel.git
        version: v7.0.26
        commit: 8243dad5bb8d8e1d4c3e49e7c8e308c5faf7b65e
    created:
      description: Time of the build, UTC.
      returned: when the release exists
      type: str
      sample: "2026-01-31T12:00:00.000000+00:00"
    python:
      description: Version of the Python interpreter.
      returned: success
      type: str
      sample: 3.13.5
    packages:
      description: The O(packages) of the build.
      returned: success
      type: list
      elements: str
      sample: [gevent>=24]
    overrides:
      description: The O(overrides) of the build.
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
      description: Digest of O(runtime); empty without a runtime.
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
  description: Whether the release was built, or would be in check mode.
  returned: success
  type: bool
  sample: true
steps:
  description: Steps of the build and their durations. Empty if nothing was built.
  returned: success
  type: list
  elements: dict
  sample: [{name: fetch, seconds: 1.2}, {name: requirements, seconds: 40.3}]
overridden:
  description: Requirements of the app that O(overrides) replaced.
  returned: success
  type: list
  elements: dict
  sample: [{name: gunicorn, app_wanted: "==20.1.0", installed: 23.0.0}]
pruned:
  description: Old releases and remains of interrupted builds that were removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [v7.0.20-5891b5b522d5]
seeded:
  description: Persistent paths that were created in O(shared_dir), or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [data, logs]
step:
  description:
    - The step that failed, one of V(fetch), V(virtualenv), V(runtime), V(requirements), V(compile), V(persist) and
      V(publish).
    - Empty if the arguments are invalid.
  returned: failure
  type: str
  sample: requirements
command:
  description: The command that failed, with masked credentials.
  returned: failure
  type: str
  sample: /opt/aapanel/tools/bin/uv pip install -r requirements.txt
output:
  description: The last 30 lines of the command's output.
  returned: failure
  type: list
  elements: str
  sample: ["error: No solution found when resolving dependencies"]
log:
  description: Path of the log with the complete output of the build.
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
    """Convert the arguments to a request.

    :raises ReleaseError: an argument is invalid.
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
        # By default, Ansible masks all values of the environment in the result: a "1" even in IDs and times. Mask only
        # secrets.
        module.no_log_values = build.secrets(request)
        builder = build.ReleaseBuilder(request)
        plan = builder.make_plan(tolerant=module.check_mode)
        if not module.check_mode:
            needs = builder.missing_content(plan)
            if needs:
                module.exit_json(changed=False, needs=needs, invocation=invocation)
            plan = builder.apply(plan)
        result = builder.report(plan, done=not module.check_mode)
    except ReleaseError as exc:
        where = f"The release failed in step {exc.step}: " if exc.step else ""
        log = f" The complete output is in {exc.log}." if exc.log else ""
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
        module.fail_json(
            msg=f"base_dir: {where} cannot be used: {exc.strerror or exc}. Check its permissions and disk.",
            invocation=invocation,
        )
    if result["built"]:
        for item in result["overridden"]:
            module.warn(
                f"{item['name']} {item['installed']} is installed because of `overrides`, but the app requires "
                f"{item['app_wanted']}."
            )
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
