# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import archive, git, tree
from .command import Runner, split_credentials
from .errors import ReleaseError

TYPES = ("git", "path", "archive")
_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})")
_REMOTE = ("http://", "https://")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


@dataclass(frozen=True)
class Source:
    """Where an app comes from, as asked for; see the module's O(source) for the fields."""

    type: str
    location: str
    version: str = ""
    checksum: str = ""
    subdir: str = ""
    exclude: tuple[str, ...] = ()
    commit: str = ""


@dataclass(frozen=True)
class Tree:
    """A directory of the controller, as the target sees it.

    :param digest: what it holds (:func:`tree.digest`).
    :param path: the directory itself, where it can be read on the target.
    :param archive: the directory packed, where it was sent to the target.
    """

    digest: str
    path: Path | None = None
    archive: Path | None = None

    @property
    def is_here(self) -> bool:
        """Tell whether its content has reached the target."""
        return bool(self.path or self.archive)

    def unpack(self, destination: Path, scratch: Path, exclude: Sequence[str] = ()) -> None:
        """Write the content to a directory that does not exist yet.

        :raises ReleaseError: it is not what the digest promised.
        """
        if self.archive:
            unpacked = scratch / f"{destination.name}.unpacked"
            archive.extract(self.archive, unpacked)
            tree.transfer(unpacked, destination, move=True)
        elif self.path:
            tree.transfer(self.path, destination, exclude)
        else:
            raise ReleaseError(f"The content of {destination.name} was not sent to this host.")
        if tree.digest(destination) != self.digest:
            raise ReleaseError(f"{destination.name} changed while it was being read. Run again once it rests.")


@dataclass(frozen=True)
class Identity:
    """What a source comes to: enough to know whether its release exists.

    :param key: says which content; equal keys, equal content.
    :param label: what to call it, unless the user says otherwise.
    :param commit: the commit, of a git source.
    """

    key: str
    label: str
    commit: str = ""


def classify(kind: str, location: str) -> str:
    """Return the type of a source: as given, or by the look of its location when V(auto).

    Archives are known by their suffix; git repositories by ``.git``, ``host:path`` or a URL; all else is a path.
    """
    if kind != "auto":
        return kind
    bare = split_credentials(location)[0]
    if bare.partition("?")[0].partition("#")[0].lower().endswith(archive.SUFFIXES):
        return "archive"
    scp_like = re.match(r"[^/]+@[^/:]+:", bare)
    return "git" if bare.rstrip("/").endswith(".git") or "://" in bare or scp_like else "path"


def check(source: Source) -> None:
    """Refuse a source that cannot be meant.

    :raises ReleaseError: says which field, and the cure.
    """
    shown = split_credentials(source.location)[0]
    if not source.location.strip():
        raise ReleaseError("source.location is empty; give a repository, a directory or an archive.")
    if source.subdir:
        tree.relative_path(source.subdir, "source.subdir")
    if source.type == "git":
        git.check(source.location, source.version)
        if source.commit and not git.is_commit(source.commit):
            raise ReleaseError(f"source.commit: {source.commit!r} must be 40 hexadecimal digits.")
        return
    if source.commit:
        raise ReleaseError(
            f"source.commit: {source.commit!r} has no meaning for {shown}, taken for source.type: {source.type}."
        )
    if source.version:
        raise ReleaseError(
            f"source.version: {source.version!r} has no meaning for {shown}, taken for source.type: {source.type}."
        )
    if source.type == "archive":
        if "://" in shown and not shown.startswith((*_REMOTE, "file://")):
            raise ReleaseError(f"source.location: {shown} must be an https, http or file URL, or a path.")
        if source.checksum and not _CHECKSUM.fullmatch(source.checksum):
            raise ReleaseError(f"source.checksum: {source.checksum!r} must be sha256: and 64 hexadecimal digits.")
        if shown.startswith(_REMOTE) and not source.checksum:
            raise ReleaseError(
                f"source.checksum is required for {shown}: an archive from a network is installed as root, so it "
                "must be the one that you looked at. Give sha256: and the 64 digits that sha256sum prints."
            )
    elif source.checksum:
        raise ReleaseError("source.checksum is for archives only; a directory is known by its content.")


def identify(source: Source, content: Tree | None, runner: Runner) -> Identity:
    """Find out which content a source stands for now, without fetching it.

    :param content: the directory, of a source of type path.
    :raises ReleaseError: the repository or archive cannot be read.
    """
    detail = "\0".join((source.subdir, *source.exclude))
    if source.type == "git":
        commit = source.commit or git.resolve(runner, source.location, source.version)
        return Identity(f"git\0{commit}\0{detail}", label_from(source.version) or commit[:12], commit)
    if source.type == "archive":
        name = archive_name(source.location)
        checksum = source.checksum.partition(":")[2].lower() or tree.file_digest(_archive_path(source.location))
        return Identity(f"archive\0{checksum}\0{detail}", name)
    root = Path(source.location) / source.subdir
    digest = content.digest if content else tree.digest(root, (*tree.DEFAULT_EXCLUDE, *source.exclude))
    return Identity(f"path\0{digest}", "local" if content else label_of(root))


@dataclass(frozen=True)
class Workshop:
    """Where and how a source is fetched.

    :param scratch: a directory on the file system of the release, thrown away afterwards.
    :param git_cache: keeps git objects between builds.
    """

    runner: Runner
    scratch: Path
    git_cache: Path


def fetch(source: Source, content: Tree | None, identity: Identity, app: Path, workshop: Workshop) -> None:
    """Write the source to a directory that does not exist yet.

    :param app: that directory.
    :raises ReleaseError: it cannot be fetched, is not what it should be, or is hostile.
    """
    runner, scratch = workshop.runner, workshop.scratch
    if source.type == "path":
        here = content or Tree(identity.key.partition("\0")[2], Path(source.location) / source.subdir)
        here.unpack(app, scratch, (*tree.DEFAULT_EXCLUDE, *source.exclude))
        return
    unpacked = scratch / "source"
    if source.type == "git":
        git.Cache(runner, workshop.git_cache).export(source.location, identity.commit, unpacked)
    else:
        packed = scratch / "archive"
        if source.location.startswith(_REMOTE):
            actual = archive.download(source.location, packed, runner.environment, runner.timeout)
        else:
            packed = _archive_path(source.location)
            actual = tree.file_digest(packed)
        wanted = identity.key.split("\0")[1]
        if actual != wanted:
            raise ReleaseError(
                f"{split_credentials(source.location)[0]} has the checksum sha256:{actual}, but sha256:{wanted} is "
                "asked for (source.checksum). It is not the file that the checksum was made of."
            )
        archive.extract(packed, unpacked)
        unpacked = archive.strip_top(unpacked)
    root = unpacked / source.subdir
    if source.subdir and (root.is_symlink() or not root.is_dir()):
        raise ReleaseError(f"source.subdir: the source has no directory {source.subdir}.")
    tree.transfer(root, app, source.exclude, move=True)


def archive_name(location: str) -> str:
    """Return the name of an archive without its suffix, as a label."""
    name = location.partition("?")[0].partition("#")[0].rpartition("/")[2]
    suffix = max((item for item in archive.SUFFIXES if name.lower().endswith(item)), key=len, default="")
    return label_from(name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name) or "archive"


def label_of(root: Path) -> str:
    """Return what a directory calls itself: the first line of its file VERSION, or ``local``."""
    try:
        with (root / "VERSION").open(encoding="utf-8") as handle:
            return label_from(handle.readline(200).strip()) or "local"
    except (OSError, UnicodeDecodeError):
        return "local"


def label_from(text: str) -> str:
    """Turn a tag, branch or file name into a label; empty when nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("._+-")[:63]


def check_label(label: str) -> None:
    """Refuse a label that cannot be part of a directory's name.

    :raises ReleaseError: says what a label is made of.
    """
    if label and not _LABEL.fullmatch(label):
        raise ReleaseError(
            f"label: {label!r} must begin with a letter or digit, go on with those and . _ + -, and be at most 63 long."
        )


def _archive_path(location: str) -> Path:
    return Path(location.removeprefix("file://"))
