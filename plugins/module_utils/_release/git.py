# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from pathlib import Path

from . import archive
from .command import Runner, split_credentials
from .errors import ReleaseError
from .tree import relative_path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEEPEST_SUBMODULE = 5
# A repository is data, never instructions: no attribute of it may leave out, rewrite or filter what was committed.
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"


def _settings(url: str, given: int) -> tuple[str, dict[str, str]]:
    """Return the URL to put on a command line and the environment that goes with it.

    Arguments can be read by every user of the host, the environment only by this one: credentials travel as a
    header in git's configuration (``GIT_CONFIG_COUNT``, git 2.31), bound to the server that they belong to.

    :param given: how many settings the environment holds already; they stay.
    """
    bare, user, password = split_credentials(url)
    options = [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("gc.autoDetach", "false"),
        ("maintenance.autoDetach", "false"),
        ("credential.interactive", "false"),
    ]
    if user and bare.startswith(("http://", "https://")):
        server = "/".join(bare.split("/", 3)[:3]) + "/"
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        options.append((f"http.{server}.extraHeader", f"Authorization: Basic {token}"))
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_CONFIG_COUNT": str(given + len(options)),
        "LC_ALL": "C",
    }
    for number, (name, value) in enumerate(options, given):
        environment[f"GIT_CONFIG_KEY_{number}"] = name
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return bare, environment


def _run(runner: Runner, url: str, *arguments: str) -> list[str]:
    """Run git with the settings for a URL; ``{url}`` in an argument stands for the URL without credentials."""
    bare, environment = _settings(url, int(runner.environment.get("GIT_CONFIG_COUNT") or 0))
    if not shutil.which("git", path=runner.environment.get("PATH")):
        raise ReleaseError("git is not installed on this host; a repository cannot be read without it.")
    if "GIT_SSH_COMMAND" not in runner.environment:
        environment["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    return runner.run(["git", *(bare if item == "{url}" else item for item in arguments)], extra=environment)


def check(url: str, version: str) -> None:
    """Refuse a URL or version that git would read as an option.

    :raises ReleaseError: it begins with a dash, or holds a line break.
    """
    for name, value in (("source.location", url), ("source.version", version)):
        if value.startswith("-") or any(ord(character) < ord(" ") for character in value):
            shown = split_credentials(value)[0]
            raise ReleaseError(f"{name}: {shown!r} is no {'URL of a repository' if value is url else 'version'}.")


def is_commit(version: str) -> bool:
    """Tell whether this is a commit in full: 40 hexadecimal digits."""
    return bool(_COMMIT.fullmatch(version))


def resolve(runner: Runner, url: str, version: str) -> str:
    """Return the commit that a branch, a tag or ``HEAD`` stands for; tags win over branches, as in git itself.

    :param version: empty for the default branch; a commit's 40 hexadecimal digits are returned as they are, unasked.
    :raises ReleaseError: git is missing, the repository does not answer, or has no such branch or tag.
    """
    check(url, version)
    if is_commit(version):
        return version
    names = {}
    for line in _run(runner, url, "ls-remote", "--quiet", "--", "{url}"):
        commit, tab, name = line.partition("\t")
        if tab and is_commit(commit):
            names[name] = commit
    wanted = version or "HEAD"
    # `^{}` is the commit that an annotated tag points at.
    for name in (f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted):
        if name in names:
            return names[name]
    raise ReleaseError(
        f"source.version: {wanted!r} is neither a branch nor a tag of {runner.mask(url)}; "
        "a commit must be given in full, 40 hexadecimal digits."
    )


class Cache:
    """A bare repository that commits are fetched into and written from.

    There is no working copy: objects go from here through ``git archive`` and the same safe extraction as any other
    archive. So neither hooks nor attributes nor paths of a repository are trusted.

    :param path: made when missing; the caller must hold the build lock.
    """

    def __init__(self, runner: Runner, path: Path) -> None:
        self._runner = runner
        self._path = path

    def export(self, url: str, commit: str, destination: Path) -> None:
        """Write the tree of a commit, submodules included, exactly as it was committed.

        :param destination: a directory that does not exist yet.
        :raises ReleaseError: the commit cannot be fetched.
        """
        self._prepare()
        self._export(url, commit, destination, 0)

    def _git(self, url: str, *arguments: str) -> list[str]:
        return _run(self._runner, url, f"--git-dir={self._path}", *arguments)

    def _prepare(self) -> None:
        if not (self._path / "HEAD").is_file():
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _run(self._runner, "", "init", "--quiet", "--bare", "--template=", os.fspath(self._path))
        # A fetch that was killed leaves its lock, and every later one would refuse to begin. The caller holds the build
        # lock, so nobody is at work.
        for stale in self._path.glob("**/*.lock"):
            stale.unlink(missing_ok=True)
        (self._path / "info").mkdir(exist_ok=True)
        (self._path / "info" / "attributes").write_text(_ATTRIBUTES)

    def _fetch(self, url: str, commit: str) -> None:
        reference = f"refs/release/{commit}"
        try:
            # A commit by its name, alone: the least that can be transferred. Old or strict servers refuse it.
            self._git(url, "fetch", "--quiet", "--no-tags", "--depth=1", "--", "{url}", f"+{commit}:{reference}")
        except ReleaseError:
            everything = ("+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*")
            self._git(url, "fetch", "--quiet", "--", "{url}", *everything)
            self._git(url, "update-ref", reference, commit)

    def _export(self, url: str, commit: str, destination: Path, depth: int) -> None:
        self._fetch(url, commit)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".git-") as scratch:
            packed = Path(scratch) / "tree.tar"
            self._git(url, "archive", "--format=tar", f"--output={packed}", commit)
            archive.extract(packed, destination)
        listing = self._git(url, "ls-tree", "-r", "-z", "--full-tree", commit)
        # A gitlink, mode 160000, is where a submodule goes.
        entries = [entry.partition("\t") for entry in "\n".join(listing).split("\0") if entry.startswith("160000 ")]
        if entries and depth == _DEEPEST_SUBMODULE:
            raise ReleaseError(f"{self._runner.mask(url)} nests submodules more than {_DEEPEST_SUBMODULE} deep.")
        urls = self._submodules(url, commit) if entries else {}
        for description, _, path in entries:
            if path not in urls:
                raise ReleaseError(
                    f"{self._runner.mask(url)} has a submodule at {path!r} that .gitmodules does not name."
                )
            target = destination / relative_path(path, "submodule")
            target.rmdir()
            self._export(submodule_url(url, urls[path]), description.split()[2], target, depth + 1)

    def _submodules(self, url: str, commit: str) -> dict[str, str]:
        """Return the URL that .gitmodules gives for each path."""
        found: dict[str, dict[str, str]] = {}
        for line in self._git(url, "config", "--blob", f"{commit}:.gitmodules", "--list"):
            key, _, value = line.partition("=")
            if key.startswith("submodule.") and key.endswith((".path", ".url")):
                name, _, field = key.partition(".")[2].rpartition(".")
                found.setdefault(name, {})[field] = value
        return {item["path"]: item["url"] for item in found.values() if "path" in item and "url" in item}


def submodule_url(parent: str, url: str) -> str:
    """Return the URL of a submodule, relative ones taken from the parent's (gitmodules(5)).

    Credentials of the parent are kept for submodules on the same server only.

    :raises ReleaseError: a repository from the network asks for a path of this host.
    """
    bare, _, _ = split_credentials(parent)
    prefix = parent[: len(parent) - len(bare.partition("://")[2])] if "://" in bare else ""
    if url.startswith(("./", "../")):
        base = bare.rstrip("/")
        rest = url
        while rest.startswith(("./", "../")):
            if rest.startswith("../"):
                base = base.rpartition("/")[0]
            rest = rest.partition("/")[2]
        result = f"{base}/{rest}"
    else:
        result = url
    check(result, "")
    if _is_local(result) and not _is_local(bare):
        raise ReleaseError(f"{bare} has a submodule at {result}, which is a path of this host.")
    same_server = "://" in result and result.split("/", 3)[:3] == bare.split("/", 3)[:3]
    return prefix + result.partition("://")[2] if prefix and same_server else result


def _is_local(url: str) -> bool:
    """Tell whether git takes a URL for a path: no scheme but file, and no ``host:path``."""
    if "://" in url:
        return url.startswith("file://")
    return ":" not in url.split("/", 1)[0]
