# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Plan, build and report a release."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._host import durable
from . import packages, persist, tree
from . import source as sources
from .command import Masker, Runner, secrets_in, secrets_of
from .errors import ReleaseError
from .store import Store, releases_to_prune, remove_tree, write_manifest

UNKNOWN_ID = "unknown until built"
# Increase when the layout of a release changes: all releases are then rebuilt.
_FORMAT = 1
_SCRATCH = ".build"


@dataclass(frozen=True)
class Request:
    """The requested release; the fields are the options of the module ``release``."""

    base_dir: Path
    source: sources.Source
    content: sources.Tree | None = None
    requirements: str = ""
    packages: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    runtime: sources.Tree | None = None
    runtime_extras: tuple[str, ...] = ()
    python: str = "python3"
    uv: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    persistent_paths: tuple[str, ...] = ()
    shared_dir: Path | None = None
    shared_mode: int = 0o750
    owner: str = ""
    group: str = ""
    label: str = ""
    keep: int = 5
    in_use: tuple[str, ...] = ()
    timeout: int = 1800
    lock_timeout: int = 600


@dataclass(frozen=True)
class Plan:
    """The changes that a request needs.

    :param release_id: None if it cannot be determined, such as in check mode on a host without git.
    :param digest: digest of all inputs of the release.
    :param build: whether the release must be built.
    :param seed: persistent paths that are missing in the shared directory.
    :param existing: complete releases, newest first.
    :param prune: releases to remove afterwards.
    :param leftovers: remains of interrupted builds.
    """

    release_id: str | None
    digest: str
    identity: sources.Identity | None
    python: packages.Interpreter | None
    build: bool
    seed: list[str]
    existing: list[str]
    prune: list[str]
    leftovers: list[str]

    @property
    def changed(self) -> bool:
        """Return whether the plan changes anything."""
        return bool(self.build or self.seed or self.prune or self.leftovers)


def secrets(request: Request) -> set[str]:
    """Return the secrets of a request: those in its environment, and the credentials in its URLs."""
    texts = (request.source.location, *request.packages, *request.overrides, *os.environ.values())
    return secrets_of(request.environment).union(*(secrets_in(text) for text in texts))


class ReleaseBuilder:
    """Plans, builds and reports a release.

    :raises ReleaseError: the request is invalid.
    """

    def __init__(self, request: Request) -> None:
        sources.check(request.source)
        sources.check_label(request.label)
        packages.check_specifiers(request.packages, "packages")
        packages.check_specifiers(request.overrides, "overrides")
        self.paths = persist.check_paths(request.persistent_paths)
        for name, value in (("base_dir", request.base_dir), ("shared_dir", request.shared_dir)):
            if value is not None and not value.is_absolute():
                raise ReleaseError(f"{name}: {os.fspath(value)!r} must be an absolute path.")
        if request.shared_dir is None and self.paths:
            raise ReleaseError("shared_dir is required with persistent_paths, which are stored there; set it.")
        self.shared_dir = request.shared_dir or request.base_dir / "shared"
        self.request = request
        self.store = Store(request.base_dir)
        self.mask = Masker(secrets(request))
        self.steps: list[dict[str, Any]] = []
        self._environment = _environment(request.environment, request.base_dir)

    def make_plan(self, *, tolerant: bool = False) -> Plan:
        """Return the plan for the request, without changing anything.

        :param tolerant: return a plan without a release ID if that cannot be determined (check mode on an empty host).
        :raises ReleaseError: the source or the interpreter cannot be read.
        """
        runner = Runner(self._environment, self.request.timeout, self.mask)
        try:
            with _step("virtualenv"):
                python = packages.find_python(self.request.python, runner)
            with _step("fetch"):
                identity = sources.identify(self.request.source, self.request.content, runner)
        except ReleaseError:
            if not tolerant:
                raise
            return self._plan(None, "", None, None)
        digest = self._digest(identity, python)
        release_id = f"{self.request.label or identity.label}-{digest[:12]}"
        return self._plan(release_id, digest, identity, python)

    def _refresh(self, plan: Plan) -> Plan:
        """Return the plan updated under the lock, because another build may have changed the releases meanwhile."""
        found = self._plan(plan.release_id, plan.digest, plan.identity, plan.python)
        return replace(found, leftovers=self.store.leftovers(locked=True))

    def _plan(
        self,
        release_id: str | None,
        digest: str,
        identity: sources.Identity | None,
        python: packages.Interpreter | None,
    ) -> Plan:
        existing = self.store.complete()
        build = release_id is None or release_id not in existing
        after = [release_id or UNKNOWN_ID, *existing] if build else existing
        protected = {*self.store.in_slots(), *(Path(item).name for item in self.request.in_use)}
        return Plan(
            release_id=release_id,
            digest=digest,
            identity=identity,
            python=python,
            build=build,
            seed=persist.missing(self.shared_dir, self.paths),
            existing=existing,
            prune=releases_to_prune(after, self.request.keep, {*protected, release_id or UNKNOWN_ID}),
            leftovers=self.store.leftovers(),
        )

    def _digest(self, identity: sources.Identity, python: packages.Interpreter) -> str:
        request = self.request
        content = {
            "format": _FORMAT,
            "source": identity.key,
            "requirements": request.requirements,
            "packages": request.packages,
            "overrides": request.overrides,
            "runtime": [request.runtime.digest, request.runtime_extras] if request.runtime else None,
            "python": python.key,
            "persistent_paths": [self.paths, os.fspath(self.shared_dir)] if self.paths else None,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def missing_content(self, plan: Plan) -> list[str]:
        """Return which of ``source`` and ``runtime`` must be sent to this host before the build."""
        parts = {"source": self.request.content, "runtime": self.request.runtime}
        return [name for name, part in parts.items() if plan.build and part and not part.is_available]

    def apply(self, plan: Plan) -> Plan:
        """Carry out a plan under the build lock; returns the plan as updated under the lock.

        :raises ReleaseError: a step failed; existing releases are unchanged.
        """
        if not plan.changed or plan.release_id is None or plan.identity is None or plan.python is None:
            return plan
        # Another user than the builder must be able to read the release.
        previous_mask = os.umask(0o022)
        try:
            self._make_directories()
            with self.store.lock(self.request.lock_timeout) as lock:
                plan = self._refresh(plan)
                for name in plan.leftovers:
                    self.store.remove(name)
                if plan.build:
                    self._build(plan, lock)
                elif plan.seed:
                    with self._timed("persist"):
                        self._seed(self.store.path(plan.release_id or "") / "seed")
                for name in plan.prune:
                    self.store.remove(name)
                self.store.remove_logs(
                    {name for name in (plan.release_id or "", *plan.existing) if name not in plan.prune}
                )
        finally:
            os.umask(previous_mask)
        return plan

    def _make_directories(self) -> None:
        try:
            self.store.releases.mkdir(0o755, parents=True, exist_ok=True)
            self.store.cache.mkdir(0o700, exist_ok=True)
        except OSError as exc:
            raise ReleaseError(
                f"base_dir: {exc.filename} cannot be created: {exc.strerror}. Use another directory, or run as root."
            ) from exc

    def _build(self, plan: Plan, lock: int) -> None:
        release_id = plan.release_id or ""
        partial = self.store.partial(release_id)
        log = self.store.log(release_id)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            runner = Runner(self._environment, self.request.timeout, self.mask, handle, (lock,))
            try:
                with _step("fetch"):
                    partial.mkdir(0o755)
                _Build(self, plan, partial, runner).run()
            except ReleaseError as exc:
                runner.note(f"failed: {exc.message}")
                exc.log = os.fspath(log)
                raise
            finally:
                remove_tree(partial)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        with _step(name):
            yield
        self.steps.append({"name": name, "seconds": round(time.monotonic() - began, 2)})

    def _seed(self, seed: Path) -> None:
        owner = persist.find_owner(self.request.owner, self.request.group)
        persist.seed_shared(self.shared_dir, seed, self.paths, owner, self.request.shared_mode)

    def report(self, plan: Plan, *, done: bool) -> dict[str, Any]:
        """Return the results of the module.

        :param done: whether the plan was carried out.
        """
        release_id = plan.release_id or UNKNOWN_ID
        path = self.store.path(release_id)
        manifest = self.store.read(release_id) or self.describe(plan)
        before = sorted(plan.existing)
        added = {release_id} if plan.build else set()
        after = sorted((set(before) | added) - set(plan.prune))
        header = f"{self.store.releases} (releases)"
        return {
            "changed": plan.changed,
            "built": plan.build,
            "release": {
                **manifest,
                "path": os.fspath(path),
                "app": os.fspath(path / "app"),
                "venv": os.fspath(path / "venv"),
            },
            "steps": self.steps if done else [],
            "overridden": manifest.get("overridden", []),
            "pruned": [*plan.prune, *plan.leftovers],
            "seeded": [item.rstrip("/") for item in plan.seed],
            "diff": {
                "before_header": header,
                "after_header": header,
                "before": "".join(f"{name}\n" for name in before),
                "after": "".join(f"{name}\n" for name in after),
            },
        }

    def describe(self, plan: Plan) -> dict[str, Any]:
        """Return the content of a release's release.json, except for ``created`` and ``overridden``."""
        request = self.request
        origin = {
            "type": request.source.type,
            "location": self.mask(request.source.location),
            "version": request.source.version,
            "commit": plan.identity.commit if plan.identity else "",
            "checksum": request.source.checksum,
            "subdir": request.source.subdir,
        }
        return {
            "id": plan.release_id or UNKNOWN_ID,
            "label": request.label or (plan.identity.label if plan.identity else ""),
            "digest": f"sha256:{plan.digest}" if plan.digest else "",
            "source": {name: value for name, value in origin.items() if value},
            "python": plan.python.version if plan.python else "",
            "packages": [self.mask(item) for item in request.packages],
            "overrides": [self.mask(item) for item in request.overrides],
            "runtime": request.runtime.digest if request.runtime else "",
            "persistent_paths": [item.rstrip("/") for item in self.paths],
        }


class _Build:
    """The steps of one build, from an empty directory to a published release."""

    def __init__(self, builder: ReleaseBuilder, plan: Plan, partial: Path, runner: Runner) -> None:
        self.builder = builder
        self.request = builder.request
        self.plan = plan
        self.partial = partial
        self.scratch = partial / _SCRATCH
        self.app = partial / "app"
        self.venv = partial / "venv"
        self.uv = ""
        self.wheel: Path | None = None
        self.runner = runner
        self.overridden: list[dict[str, str]] = []

    def run(self) -> None:
        """Run all steps."""
        self.scratch.mkdir(0o700)
        steps = ("fetch", "virtualenv", "runtime", "requirements", "compile", "persist", "publish")
        with _step("virtualenv"):
            # Check before the fetch, so that a missing uv is reported at once.
            self.uv = packages.find_uv(self.request.uv, self.request.base_dir, self.runner.environment.get("PATH"))
            if self.request.owner:
                persist.find_owner(self.request.owner, self.request.group)
        for name in steps:
            self.runner.note(f"== {name}")
            with self.builder._timed(name):
                getattr(self, f"_{name}")()

    def _fetch(self) -> None:
        if self.plan.identity is None:
            return
        context = sources.FetchContext(self.runner, self.scratch, self.builder.store.cache / "git")
        sources.fetch(self.request.source, self.request.content, self.plan.identity, self.app, context)

    def _virtualenv(self) -> None:
        python = self.plan.python.executable if self.plan.python else self.request.python
        # Relocatable: scripts find the interpreter beside themselves, so they keep working after the rename that
        # publishes the release.
        self._uv("venv", "--quiet", "--relocatable", "--no-project", "--python", python, os.fspath(self.venv))
        identity = persist.find_run_identity(self.request.owner)
        if identity:
            try:
                self.runner.run([self._python, "-I", "-c", ""], identity=identity, cwd=Path("/"))
            except ReleaseError as exc:
                raise ReleaseError(
                    f"{self.request.owner} cannot run {python} from {self.request.base_dir}: that user cannot enter a "
                    "parent directory of one of them. Use a Python that all users can run, such as /usr/bin/python3.",
                    command=exc.command,
                    output=exc.output,
                ) from exc

    def _runtime(self) -> None:
        runtime, store = self.request.runtime, self.builder.store
        if not runtime:
            return
        self.wheel = store.wheel(runtime.digest)
        if self.wheel is None:
            # Keep the wheel for later releases: building it takes longer than the rest of a build with a warm cache.
            sources, wheels = self.scratch / "runtime", self.scratch / "wheel"
            runtime.unpack(sources, self.scratch, tree.DEFAULT_EXCLUDE)
            self._uv(
                "build",
                "--quiet",
                "--wheel",
                "--python",
                self._python,
                "--out-dir",
                os.fspath(wheels),
                os.fspath(sources),
            )
            self.wheel = store.keep_wheel(runtime.digest, next(wheels.glob("*.whl")))

    def _requirements(self) -> None:
        requirements = self._requirements_file()
        extra = list(self.request.packages)
        if self.wheel:
            extras = ",".join(self.request.runtime_extras)
            extra.append(f"{self.wheel}{f'[{extras}]' if extras else ''}")
        if not requirements and not extra:
            return
        # Pass them in files, not in arguments: a URL may contain a password.
        arguments = []
        for option, name, lines in (
            ("-r", "packages.txt", extra),
            ("--override", "overrides.txt", self.request.overrides),
        ):
            if lines:
                path = self.scratch / name
                path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
                arguments += [option, os.fspath(path)]
        if requirements:
            arguments += ["-r", os.fspath(requirements)]
        # Install everything in one resolution, so that conflicts between the runtime and the app are found.
        self._uv("pip", "install", "--compile-bytecode", "--python", self._python, *arguments)
        if requirements:
            self.overridden = packages.overridden(
                packages.wanted_versions(requirements), packages.installed_versions(self.venv), self.request.overrides
            )
            for item in self.overridden:
                self.runner.note(f"override: {item['name']} {item['installed']} instead of {item['app_wanted']}")

    def _requirements_file(self) -> Path | None:
        wanted = self.request.requirements
        path = self.app / tree.relative_path(wanted or "requirements.txt", "requirements")
        if path.is_file():
            return path
        if wanted:
            raise ReleaseError(f"requirements: the source has no file {wanted}; correct the path.")
        return None

    def _compile(self) -> None:
        # The app's user cannot write into the release, so Python could not cache bytecode later. Accept status 1: a
        # file that does not compile (a template, Python 2) does not fail the build. Record the published paths.
        self.runner.run(
            [
                self._python,
                "-I",
                "-m",
                "compileall",
                "-q",
                "-j",
                "0",
                "-s",
                os.fspath(self.partial),
                "-p",
                os.fspath(self._final),
                os.fspath(self.app),
            ],
            accept=(0, 1),
        )

    def _persist(self) -> None:
        if self.builder.paths:
            seed = self.partial / "seed"
            persist.link(self.app, seed, self.builder.shared_dir, self.builder.paths)
            self.builder._seed(seed)

    def _publish(self) -> None:
        self._rewrite_build_paths()
        remove_tree(self.scratch)
        self._remove_write_permissions()
        manifest = self.builder.describe(self.plan)
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
        write_manifest(self.partial, {**manifest, "created": created, "overridden": self.overridden})
        self._sync_file_system()
        durable.sync(self.partial)
        self.builder.store.publish(self.plan.release_id or "")

    def _rewrite_build_paths(self) -> None:
        """Replace the build path by the final path in the files that contain it (those of editable requirements)."""
        here, final = os.fsencode(self.partial), os.fsencode(self._final)
        site = self.venv.glob("lib/python*/site-packages")
        texts = [
            path
            for top in site
            for pattern in ("*.pth", "__editable__*.py", "*.egg-link")
            for path in top.glob(pattern)
        ]
        for path in texts:
            content = path.read_bytes()
            if here in content:
                # Replace the file instead of writing into it: it may be a hard link to uv's cache.
                path.unlink()
                path.write_bytes(content.replace(here, final))

    def _remove_write_permissions(self) -> None:
        """Remove write permissions of group and others; they come from archives and from uv's lock file."""
        for folder, _folders, names in os.walk(self.partial):
            for path in (Path(folder), *(Path(folder) / name for name in names)):
                mode = path.lstat().st_mode
                if mode & 0o022 and not stat.S_ISLNK(mode):
                    path.chmod(stat.S_IMODE(mode) & ~0o022)

    def _sync_file_system(self) -> None:
        """Flush the build to disk, with one call for the file system instead of one per file."""
        try:
            self.runner.run(["sync", "-f", os.fspath(self.partial)])
        except ReleaseError:
            os.sync()

    @property
    def _final(self) -> Path:
        return self.builder.store.path(self.plan.release_id or "")

    @property
    def _python(self) -> str:
        return os.fspath(self.venv / "bin" / "python")

    def _uv(self, *arguments: str) -> list[str]:
        # Relative paths in the app's requirements start in its directory.
        return self.runner.run([self.uv, *arguments], cwd=self.app)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Add the name of the step to every error."""
    try:
        yield
    except ReleaseError as exc:
        exc.step = exc.step or name
        raise
    except (OSError, ValueError) as exc:
        raise ReleaseError(f"{type(exc).__name__}: {exc}.", step=name) from exc


def _environment(given: Mapping[str, str], base_dir: Path) -> dict[str, str]:
    """Return the environment of the build's commands: that of this process, with ``given`` and the build's defaults."""
    # Variables of a surrounding shell or virtualenv that would change which Python or git repository is used.
    unrelated = ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "UV_PYTHON")
    result = {name: value for name, value in os.environ.items() if name not in unrelated}
    result.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    result.update(
        {
            # Use the host's CA certificates; older versions of uv use the second name.
            "UV_SYSTEM_CERTS": "1",
            "UV_NATIVE_TLS": "1",
            "UV_CACHE_DIR": os.fspath(base_dir / "cache" / "uv"),
            "UV_LINK_MODE": "hardlink",
            # Use only the host's Python, because the host's package updates keep it secure.
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
        }
    )
    result.update(given)
    home = result.get("HOME", "")
    if not home or not os.access(home, os.W_OK):
        result["HOME"] = os.fspath(base_dir / "cache")
    return result
