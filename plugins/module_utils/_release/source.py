# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Sources of an app: git repositories, archives, and directories of the controller."""

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
_HTTP_SCHEMES = ("http://", "https://")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


@dataclass(frozen=True)
class Source:
    """The requested source of an app; the fields are the suboptions of ``source`` of the module ``release``."""

    type: str
    location: str
    version: str = ""
    checksum: str = ""
    subdir: str = ""
    exclude: tuple[str, ...] = ()
    commit: str = ""


@dataclass(frozen=True)
class Tree:
    """A directory of the controller, as available on the target.

    :param digest: digest of its content (:func:`tree.digest`).
    :param path: the directory itself, if the target can read it.
    :param archive: the packed directory, if it was sent to the target.
    """

    digest: str
    path: Path | None = None
    archive: Path | None = None

    @property
    def is_available(self) -> bool:
        """Return whether the target can read the content."""
        return bool(self.path or self.archive)

    def unpack(self, destination: Path, scratch: Path, exclude: Sequence[str] = ()) -> None:
        """Write the content to a directory that does not exist yet.

        :raises ReleaseError: the content does not match the digest.
        """
        if self.archive:
            unpacked = scratch / f"{destination.name}.unpacked"
            archive.extract(self.archive, unpacked)
            tree.transfer(unpacked, destination, move=True)
        elif self.path:
            tree.transfer(self.path, destination, exclude)
        else:
            raise ReleaseError(f"The content of {destination.name} was not sent to this host. Run again.")
        if tree.digest(destination) != self.digest:
            raise ReleaseError(f"{destination.name} changed while it was read. Run again when nothing writes to it.")


@dataclass(frozen=True)
class Identity:
    """The identity of a source's content, from which the release ID is computed.

    :param key: equal keys mean equal content.
    :param label: default label of the release.
    :param commit: commit of a git source.
    """

    key: str
    label: str
    commit: str = ""


def classify(kind: str, location: str) -> str:
    """Return the type of a source: the given one, or for ``auto`` the one derived from its location.

    Archives are recognized by their suffix, git repositories by ``.git``, ``host:path`` or a URL; others are paths.
    """
    if kind != "auto":
        return kind
    bare = split_credentials(location)[0]
    if bare.partition("?")[0].partition("#")[0].lower().endswith(archive.SUFFIXES):
        return "archive"
    scp_like = re.match(r"[^/]+@[^/:]+:", bare)
    return "git" if bare.rstrip("/").endswith(".git") or "://" in bare or scp_like else "path"


def check(source: Source) -> None:
    """Check the fields of a source.

    :raises ReleaseError: a field is invalid.
    """
    shown = split_credentials(source.location)[0]
    if not source.location.strip():
        raise ReleaseError("source.location is empty; set a repository, a directory or an archive.")
    if source.subdir:
        tree.relative_path(source.subdir, "source.subdir")
    if source.type == "git":
        git.check(source.location, source.version)
        if source.commit and not git.is_commit(source.commit):
            raise ReleaseError(f"source.commit: {source.commit!r} must be 40 hexadecimal digits.")
        return
    if source.commit:
        raise ReleaseError(
            f"source.commit: {source.commit!r} is only valid for git, but {shown} has source.type: {source.type}. "
            "Remove it, or set source.type: git."
        )
    if source.version:
        raise ReleaseError(
            f"source.version: {source.version!r} is only valid for git, but {shown} has source.type: {source.type}. "
            "Remove it, or set source.type: git."
        )
    if source.type == "archive":
        if "://" in shown and not shown.startswith((*_HTTP_SCHEMES, "file://")):
            raise ReleaseError(f"source.location: {shown} must be an https, http or file URL, or a path.")
        if source.checksum and not _CHECKSUM.fullmatch(source.checksum):
            raise ReleaseError(f"source.checksum: {source.checksum!r} must be sha256: and 64 hexadecimal digits.")
        if shown.startswith(_HTTP_SCHEMES) and not source.checksum:
            raise ReleaseError(
                f"source.checksum is required for {shown}: a downloaded archive is installed as root, so it must be "
                "the one that you checked. Set sha256: and the 64 digits that sha256sum prints."
            )
    elif source.checksum:
        raise ReleaseError("source.checksum is only valid for archives; remove it.")


def identify(source: Source, content: Tree | None, runner: Runner) -> Identity:
    """Return the identity of a source's current content, without fetching it.

    :param content: the directory, for a source of type path.
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
class FetchContext:
    """Working directories for fetching a source.

    :param scratch: temporary directory on the file system of the release.
    :param git_cache: keeps git objects between builds.
    """

    runner: Runner
    scratch: Path
    git_cache: Path


def fetch(source: Source, content: Tree | None, identity: Identity, app: Path, context: FetchContext) -> None:
    """Fetch the source into a directory.

    :param app: a directory that does not exist yet.
    :raises ReleaseError: the source cannot be fetched, does not match its checksum, or is malicious.
    """
    runner, scratch = context.runner, context.scratch
    if source.type == "path":
        here = content or Tree(identity.key.partition("\0")[2], Path(source.location) / source.subdir)
        here.unpack(app, scratch, (*tree.DEFAULT_EXCLUDE, *source.exclude))
        return
    unpacked = scratch / "source"
    if source.type == "git":
        git.Cache(runner, context.git_cache).export(source.location, identity.commit, unpacked)
    else:
        packed = scratch / "archive"
        if source.location.startswith(_HTTP_SCHEMES):
            actual = archive.download(source.location, packed, runner.environment, runner.timeout)
        else:
            packed = _archive_path(source.location)
            actual = tree.file_digest(packed)
        wanted = identity.key.split("\0")[1]
        if actual != wanted:
            raise ReleaseError(
                f"{split_credentials(source.location)[0]} has the checksum sha256:{actual}, but source.checksum is "
                f"sha256:{wanted}. Check the file, then correct the location or the checksum."
            )
        archive.extract(packed, unpacked)
        unpacked = archive.strip_top(unpacked)
    root = unpacked / source.subdir
    if source.subdir and (root.is_symlink() or not root.is_dir()):
        raise ReleaseError(f"source.subdir: the source has no directory {source.subdir}; correct the path.")
    tree.transfer(root, app, source.exclude, move=True)


def archive_name(location: str) -> str:
    """Return the label of an archive: its name without the suffix."""
    name = location.partition("?")[0].partition("#")[0].rpartition("/")[2]
    suffix = max((item for item in archive.SUFFIXES if name.lower().endswith(item)), key=len, default="")
    return label_from(name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name) or "archive"


def label_of(root: Path) -> str:
    """Return the label of a directory: the first line of its file VERSION, or ``local``."""
    try:
        with (root / "VERSION").open(encoding="utf-8") as handle:
            return label_from(handle.readline(200).strip()) or "local"
    except (OSError, UnicodeDecodeError):
        return "local"


def label_from(text: str) -> str:
    """Convert a tag, branch or file name to a label; empty if it contains no valid character."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("._+-")[:63]


def check_label(label: str) -> None:
    """Refuse a label that cannot be part of a directory name.

    :raises ReleaseError: the label is invalid.
    """
    if label and not _LABEL.fullmatch(label):
        raise ReleaseError(
            f"label: {label!r} is invalid; use at most 63 letters, digits and . _ + -, with a letter or digit first."
        )


def _archive_path(location: str) -> Path:
    return Path(location.removeprefix("file://"))
