# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Resolve and export commits of git repositories."""

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
_MAX_SUBMODULE_DEPTH = 5
# Attributes of an untrusted repository must not omit, rewrite or filter committed files.
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"


def _settings(url: str, given: int) -> tuple[str, dict[str, str]]:
    """Return the URL without credentials for the command line, and the environment that contains them.

    All users of the host can read arguments, but not the environment. Credentials are therefore passed as an HTTP
    header in git's configuration (``GIT_CONFIG_COUNT``, git 2.31), limited to their server.

    :param given: number of git settings that are already in the environment; they are kept.
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
    """Run git with the settings for a URL; an argument ``{url}`` is replaced by the URL without credentials."""
    bare, environment = _settings(url, int(runner.environment.get("GIT_CONFIG_COUNT") or 0))
    if not shutil.which("git", path=runner.environment.get("PATH")):
        raise ReleaseError("The repository cannot be read: git is not installed on this host. Install git.")
    if "GIT_SSH_COMMAND" not in runner.environment:
        environment["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    return runner.run(["git", *(bare if item == "{url}" else item for item in arguments)], extra=environment)


def check(url: str, version: str) -> None:
    """Refuse a URL or version that git would parse as an option.

    :raises ReleaseError: it begins with a dash, or contains a control character.
    """
    for name, value in (("source.location", url), ("source.version", version)):
        if value.startswith("-") or any(ord(character) < ord(" ") for character in value):
            shown = split_credentials(value)[0]
            kind = "repository URL" if value is url else "version"
            raise ReleaseError(f"{name}: {shown!r} is not a valid {kind}; remove dashes at its start and line breaks.")


def is_commit(version: str) -> bool:
    """Return whether this is a full commit ID: 40 hexadecimal digits."""
    return bool(_COMMIT.fullmatch(version))


def resolve(runner: Runner, url: str, version: str) -> str:
    """Return the commit of a branch, a tag or ``HEAD``; tags take precedence over branches, as in git.

    :param version: empty for the default branch; a full commit ID is returned without asking the repository.
    :raises ReleaseError: git is missing, the repository cannot be read, or it has no such branch or tag.
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
        "correct it. Give a commit in full, as 40 hexadecimal digits."
    )


class Cache:
    """A bare repository that caches fetched commits and exports them.

    There is no working copy: ``git archive`` and the safe extraction of :mod:`archive` write the files. So hooks,
    attributes and paths of an untrusted repository have no effect.

    :param path: created if missing; the caller must hold the build lock.
    """

    def __init__(self, runner: Runner, path: Path) -> None:
        self._runner = runner
        self._path = path

    def export(self, url: str, commit: str, destination: Path) -> None:
        """Write the files of a commit, including submodules, exactly as committed.

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
        # A killed fetch leaves a lock that blocks later ones. No other fetch runs: the caller holds the build lock.
        for stale in self._path.glob("**/*.lock"):
            stale.unlink(missing_ok=True)
        (self._path / "info").mkdir(exist_ok=True)
        (self._path / "info" / "attributes").write_text(_ATTRIBUTES)

    def _fetch(self, url: str, commit: str) -> None:
        reference = f"refs/release/{commit}"
        try:
            # Fetch only this commit, which transfers least. Old or strictly configured servers refuse it.
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
        # An entry with mode 160000 (a gitlink) is a submodule.
        entries = [entry.partition("\t") for entry in "\n".join(listing).split("\0") if entry.startswith("160000 ")]
        if entries and depth == _MAX_SUBMODULE_DEPTH:
            raise ReleaseError(
                f"{self._runner.mask(url)} nests submodules more than {_MAX_SUBMODULE_DEPTH} levels deep; "
                "flatten them in the repository."
            )
        urls = self._submodules(url, commit) if entries else {}
        for description, _tab, path in entries:
            if path not in urls:
                raise ReleaseError(
                    f"{self._runner.mask(url)} has a submodule at {path!r} that is missing from .gitmodules; "
                    "add it there or remove it."
                )
            target = destination / relative_path(path, "submodule")
            target.rmdir()
            self._export(submodule_url(url, urls[path]), description.split()[2], target, depth + 1)

    def _submodules(self, url: str, commit: str) -> dict[str, str]:
        """Return the URLs in .gitmodules by path."""
        found: dict[str, dict[str, str]] = {}
        for line in self._git(url, "config", "--blob", f"{commit}:.gitmodules", "--list"):
            key, _equals, value = line.partition("=")
            if key.startswith("submodule.") and key.endswith((".path", ".url")):
                name, _dot, field = key.partition(".")[2].rpartition(".")
                found.setdefault(name, {})[field] = value
        return {item["path"]: item["url"] for item in found.values() if "path" in item and "url" in item}


def submodule_url(parent: str, url: str) -> str:
    """Return the absolute URL of a submodule; relative URLs start at the parent's (gitmodules(5)).

    Credentials of the parent are kept only for submodules on the same server.

    :raises ReleaseError: a remote repository refers to a path of this host.
    """
    bare = split_credentials(parent)[0]
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
        raise ReleaseError(
            f"{bare} has a submodule at {result}, a path of this host, which is refused for security. "
            "Use a URL in .gitmodules."
        )
    same_server = "://" in result and result.split("/", 3)[:3] == bare.split("/", 3)[:3]
    return prefix + result.partition("://")[2] if prefix and same_server else result


def _is_local(url: str) -> bool:
    """Return whether git treats a URL as a local path: ``file://``, or neither a scheme nor ``host:path``."""
    if "://" in url:
        return url.startswith("file://")
    return ":" not in url.split("/", 1)[0]
