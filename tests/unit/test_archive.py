# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's archive holds the product, and nothing that a user keeps in a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.prefix)
SECRET = "planted-secret-7f3a"

TOP_LEVEL = {"LICENSE", "README.md", "changelogs", "docs", "examples", "meta", "playbooks", "plugins", "roles"}
OPTIONAL = {"CHANGELOG.md"}  # written by the first release
WRITTEN_BY_GALAXY = {"MANIFEST.json", "FILES.json"}
# Tracked files inside of the packed folders that a user of the archive has no use for.
LEFT_OUT = {"changelogs/config.yaml", "docs/site.en.toml", "examples/panel/.gitignore", "playbooks/collections"}

# Files that git tracks and a user fills in.
EDITED = [
    "inventories/dev/group_vars/panel.yml",
    "inventories/prod/group_vars/panel.yml",
    "inventories/prod/hosts.yml",
    "inventories/staging/group_vars/panel.yml",
    "inventories/staging/hosts.yml",
]
# Where users, tools and editors put files: ignored by git or not.
PLANTED = [
    ".ansible/collections/secret.yml",
    ".cache/publish/secret.txt",
    ".dev/etc/slot.env",
    ".env",
    ".envrc",
    ".git/credentials",
    ".ssh/id_ed25519",
    ".vault-pass",
    ".venv/lib/secret.py",
    "CONTRIBUTING.local.md",
    "a-new-folder/secret.yml",
    "changelogs/fragments/private.yml",
    "docs/.hidden.yml",
    "docs/customer.txt",
    "docs/vault.md",
    "examples/inventory/group_vars/panel/vault.yml",
    "examples/inventory/group_vars/vault.yml",
    "examples/inventory/host_vars/panel1.yml",
    "examples/inventory/keyring.json",
    "examples/panel/.env",
    "examples/panel/data/default.db",
    "examples/panel/data/secret_key",
    "examples/panel/logs/panel.log",
    "examples/panel/static/upload/customer.svg.gz",
    "examples/pgadmin/config.json",
    "group_vars/all.yml",
    "host_vars/panel1.yml",
    "hosts.yml",
    "id_rsa",
    "inventories/customer/hosts.yml",
    "inventories/prod/group_vars/panel/vault.yml",
    "inventories/prod/group_vars/vault.yml",
    "inventories/prod/host_vars/panel1.yml",
    "inventories/prod/keyring.json",
    "meta/private.yml",
    "molecule/default/.cache/inventory.yml",
    "molecule/default/secret.yml",
    "playbooks/group_vars/all.yml",
    "playbooks/host_vars/panel1.yml",
    "playbooks/files/tls.key",
    "playbooks/secrets.yml",
    "playbooks/site.retry",
    "playbooks/vault.yml",
    "plugins/modules/__pycache__/backup.cpython-313.pyc",
    "requirements/private.txt",
    "roles/app/files/aapanel_runtime/.env",
    "roles/app/files/deploy_key",
    "roles/app/files/vault.yml",
    "roles/nginx/defaults/vault.yml",
    "roles/nginx/files/tls.key",
    "roles/nginx/files/tls.pem",
    "roles/nginx/vars/secret.yml",
    "roles/panel/vars/production.yml",
    "secrets/panel.yml",
    "site.tar.gz",
    "tests/output/secret.json",
    "tests/secret.py",
    "vault.yml",
]


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def tracked():
    """Return the paths that git tracks, or would with the next `git add`, and that exist."""
    paths = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return {path for path in paths if path and (ROOT / path).is_symlink() | (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout whose placeholders have been filled in, with a secret in each place that a user may use."""
    folder = tmp_path_factory.mktemp("archive") / "checkout"
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path, follow_symlinks=False)
    git(folder.parent, "init", "--quiet", str(folder))
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "x")
    for path in EDITED:
        assert (folder / path).is_file(), path
    for path in [*EDITED, *PLANTED]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("a", encoding="utf-8") as file:
            file.write(f"{SECRET}\n")
    (folder / "docs/gone").symlink_to("/nonexistent")
    return folder


def build_from_checkout(folder):
    """Build as a user would type it at the root of a checkout."""
    command = [str(VENV / "bin/ansible-galaxy"), "collection", "build", "--force"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def build_from_commit(folder):
    """Build with `make`, which takes no file from the working tree."""
    command = ["make", "build", f"VENV={VENV}", f"--assume-old={VENV}/.controller"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module", params=[build_from_checkout, build_from_commit], ids=["ansible-galaxy", "make"])
def archive(request, checkout):
    """Contents of the archive's files by their paths; None for what is neither a file nor a folder."""
    request.param(checkout)
    (file,) = checkout.glob("aapanel-pipeline-*.tar.gz")
    with tarfile.open(file) as tar:
        members = [member for member in tar.getmembers() if not member.isdir()]
        contents = {member.name: tar.extractfile(member).read() if member.isfile() else None for member in members}
    file.unlink()
    return contents


def test_the_archive_holds_no_secret(archive):
    assert [name for name, content in archive.items() if content is None or SECRET.encode() in content] == []
    assert set(archive) & set(PLANTED) == set()


def test_the_top_level_of_the_archive_is_the_product(archive):
    names = {name.partition("/")[0] for name in archive}
    assert names - OPTIONAL == TOP_LEVEL | WRITTEN_BY_GALAXY


def test_the_archive_holds_each_file_of_the_product(archive):
    product = {path for path in tracked() if path.partition("/")[0] in TOP_LEVEL | OPTIONAL}
    fragments = {path for path in product if path.startswith("changelogs/fragments/")}
    assert set(archive) - WRITTEN_BY_GALAXY == product - fragments - LEFT_OUT


def test_the_example_inventory_is_the_placeholders_of_production():
    for path in ["hosts.yml", "group_vars/panel.yml"]:
        # The index, because the file itself may be filled in.
        assert (ROOT / "examples/inventory" / path).read_text() == git(ROOT, "show", f":inventories/prod/{path}"), path
