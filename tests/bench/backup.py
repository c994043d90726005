# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare backup, verification and restore with tar and pigz, restic, and borg on the same data.

The programs run in turns, in several rounds, with the data in the page cache. Each measurement includes the sync to
disk: if a program does not sync its output, `sync` does. Memory is measured in a separate first round, because that
takes time.

restic and borg encrypt and deduplicate; panelctl does not, but writes one file that `tar xzf` can read. So second
backups are measured, too, after one percent of the data has changed: panelctl writes everything again, the others do
not. Only panelctl copies the database with SQLite's backup API, checks the copy, and counts its rows; its time includes
this.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import panel_data
from lab_host import ROOT, print_goals

PACKAGES = {"igzip": "isal", "pigz": "pigz", "restic": "restic", "borg": "borgbackup", "openssl": "openssl"}
UTILS = ROOT / "plugins/module_utils"
PYTHON = "/usr/bin/python3"  # the interpreter of panelctl on hosts
PROGRAM = """
import sys
sys.path.insert(0, {lib!r})
from aapanel_host._backup.cli.main import main
sys.exit(main({config!r}))
"""
POLL = 0.005  # seconds
SCRATCH = "/var/tmp"  # on disk; /tmp may be in memory
IGZIP = "igzip -2"  # compressor of the backups

GOAL_CREATE = 2.5  # times as fast as tar | pigz -6
GOAL_SIZE = 1.02  # times its size
GOAL_RESTIC = 2.0  # times as fast
GOAL_VERIFY = 1.15  # times as long as sha256sum
GOAL_RESTORE = 1.05  # times as long as sha256sum, pigz -d | tar x
GOAL_MEMORY = 64.0  # MiB


FIRST, VERIFY, RESTORE, SECOND = "first backup", "verify", "restore", "second, 1 % changed"
OURS = "panelctl backup"
TAR, TAR_PROVEN = "tar | pigz -6", "tar | pigz -6, SHA-256, HMAC"
SHA256SUM, OPENSSL = "sha256sum", "openssl dgst -sha256"
UNTAR = "sha256sum, pigz -d | tar x"
RESTIC, BORG_LZ4, BORG_ZSTD = "restic", "borg, lz4", "borg, zstd"
#: The programs that others of the same kind are compared with.
BASELINES = {FIRST: TAR, VERIFY: SHA256SUM, RESTORE: UNTAR, SECOND: RESTIC}


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    :param cpu: CPU seconds of all processes.
    :param size: bytes written to the backup.
    :param memory: peak memory of all processes in MiB; 0 if not measured.
    """

    seconds: float
    cpu: float
    size: int
    memory: float


@dataclass(frozen=True)
class Way:
    """A measured command.

    :param script: shell script.
    :param reads: file or folder that is loaded into the page cache first.
    :param backup: path whose growth is the size of the backup.
    """

    kind: str
    name: str
    script: str
    reads: Path
    backup: Path | None = None


Round = dict[tuple[str, str], Cost]


class Bench:
    """The data, and all measured commands."""

    def __init__(self, scratch: Path, megabytes: int) -> None:
        """Generate the data, and install the backup package as on a host."""
        self._scratch = scratch
        self._data = scratch / "data"
        self._ours, self._tar = scratch / "ours", scratch / "tar"
        self._repositories = {name: scratch / name.replace(", ", "-") for name in (RESTIC, BORG_LZ4, BORG_ZSTD)}
        self._restored = scratch / "restored"
        self._panelctl = f"{PYTHON} -I {install(scratch, self._data, self._ours)}"
        self._env = {
            **os.environ,
            "LC_ALL": "C",
            "RESTIC_REPOSITORY": str(self._repositories[RESTIC]),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(scratch / "restic-cache"),
            "BORG_BASE_DIR": str(scratch / "borg-base"),
            "BORG_PASSPHRASE": "benchmark",
        }
        self._data.mkdir()
        panel_data.make(self._data, megabytes)

    def describe(self) -> Iterator[str]:
        """Yield a description of the data, with the compressed size of each kind, which determines the size ratios."""
        files = [path for path in self._data.rglob("*") if path.is_file()]
        yield f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB in {len(files)} files"
        for part in sorted(self._data.iterdir()):
            size, pigz, igzip = (
                int(self._run(f"tar -cf - {part.name} | {tool} | wc -c", self._data)) / 1e6
                for tool in ("cat", "pigz -6", IGZIP)
            )
            times = igzip / pigz
            yield f"  {part.name:9}{size:6.1f} MB; pigz -6: {pigz:6.1f}, {IGZIP}: {igzip:6.1f}, {times:.3f} times"

    def round(self, number: int, *, watch: bool = False) -> Round:
        """Measure each command once, in a different order in each round.

        :param watch: also measure memory.
        """
        self._begin(number)
        costs: Round = {}
        for kind in (self._firsts, self._verifications, self._restores, self._seconds):
            if kind == self._seconds:
                panel_data.change(self._data, number)
            ways = kind()
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                costs[way.kind, way.name] = self._measure(way, watch=watch)
        return costs

    def _begin(self, number: int) -> None:
        """Remove all backups, and create empty repositories."""
        # Keep restored files until the end: ext4 creates files more slowly for minutes after many deletions.
        self._restored = self._scratch / f"restored-{number}"
        self._restored.mkdir()
        for path in (self._ours, self._tar, *self._repositories.values(), self._scratch / "restic-cache"):
            shutil.rmtree(path, ignore_errors=True)
        self._ours.mkdir()
        self._tar.mkdir()
        self._run(f"{self._panelctl} key-rotate")
        self._run("restic init")
        for name in (BORG_LZ4, BORG_ZSTD):
            self._run(f"borg init --encryption repokey-blake2 {self._repositories[name]}")

    def _firsts(self) -> list[Way]:
        archive, proven = self._tar / "archive.tar.gz", self._tar / "proven.tar.gz"
        pack = f"tar -cf - -C {self._data} . | pigz -6"
        # The manifest's digest and the archive's HMAC, each with another read of the archive.
        prove = f"sha256sum {proven} && openssl dgst -sha256 -hmac benchmark {proven}"
        return [
            Way(FIRST, OURS, f"{self._panelctl} create", self._data, self._ours),
            Way(FIRST, TAR, f"{pack} > {archive} && sync {archive}", self._data, archive),
            Way(FIRST, TAR_PROVEN, f"{pack} > {proven} && {prove} && sync {proven}", self._data, proven),
            *self._others(FIRST),
        ]

    def _others(self, kind: str) -> list[Way]:
        borg = {
            name: f"borg create --compression {name.removeprefix('borg, ')} {self._repositories[name]}::{kind[:5]} ."
            for name in (BORG_LZ4, BORG_ZSTD)
        }
        scripts = {RESTIC: "restic backup --quiet .", **borg}
        return [
            Way(kind, name, f"cd {self._data} && {script}", self._data, self._repositories[name])
            for name, script in scripts.items()
        ]

    def _verifications(self) -> list[Way]:
        (archive,) = self._ours.glob("backups/*.tar.gz")
        return [
            Way(VERIFY, OURS, f"{self._panelctl} verify", archive),
            # The same file.
            Way(VERIFY, SHA256SUM, f"sha256sum {archive}", archive),
            Way(VERIFY, OPENSSL, f"openssl dgst -sha256 {archive}", archive),
        ]

    def _restores(self) -> list[Way]:
        archive, repository = self._tar / "archive.tar.gz", self._repositories[BORG_LZ4]
        ours, tar, restic, borg = (self._restored / name for name in ("ours", "tar", "restic", "borg"))
        untar = f"sha256sum {archive} && mkdir {tar} && pigz -dc {archive} | tar -xf - -C {tar}"
        unrestic = f"restic restore --quiet latest --target {restic}"
        unborg = f"mkdir {borg} && cd {borg} && borg extract {repository}::{FIRST[:5]}"
        return [
            Way(RESTORE, OURS, f"{self._panelctl} restore --to {ours}", self._ours),
            Way(RESTORE, UNTAR, f"{untar} && sync -f {tar}", archive),
            Way(RESTORE, RESTIC, f"{unrestic} && sync -f {restic}", self._repositories[RESTIC]),
            Way(RESTORE, BORG_LZ4, f"{unborg} && sync -f {borg}", repository),
        ]

    def _seconds(self) -> list[Way]:
        return [Way(SECOND, OURS, f"{self._panelctl} create", self._data, self._ours), *self._others(SECOND)]

    def _measure(self, way: Way, *, watch: bool) -> Cost:
        # Flush the writes of earlier commands, and read the data again: borg drops its files from the page cache.
        os.sync()
        self._run(f"find {way.reads} -type f -exec cat {{}} + >/dev/null")
        before = size_of(way.backup)
        begin = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", way.script],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        memory = peak_memory(process.pid) if watch else 0.0
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{way.name}, {way.kind}: status {process.returncode}\n{said.decode(errors='replace')[-2000:]}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime, size_of(way.backup) - before, memory)

    def _run(self, script: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            check=False,
            cwd=folder,
            env=self._env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{script}: status {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout


def install(scratch: Path, data: Path, folder: Path) -> Path:
    """Install the backup package with its settings, as on a host; returns the path of the program."""
    code = scratch / "lib/aapanel_host"
    for package in ("_host", "_backup"):
        shutil.copytree(UTILS / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    settings = {
        "folder": str(folder / "backups"),
        "state_dir": str(folder / "state"),
        "keyring": str(folder / "keyring.json"),
        "host": "bench",
        "sources": [{"kind": "files", "name": "data", "path": str(data)}],
    }
    config, program = scratch / "backup.json", scratch / "panelctl.py"
    config.write_text(json.dumps(settings))
    program.write_text(PROGRAM.format(lib=str(scratch / "lib"), config=str(config)))
    return program


def size_of(path: Path | None) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path is None or not path.exists():
        return 0
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def peak_memory(pid: int) -> float:
    """Poll a process and its children until it ends; returns their peak memory in MiB.

    Counts shared memory once, by proportional set sizes (proc_pid_smaps(5)).
    """
    peak = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, sum(map(_kibibytes, _family(pid))))
        time.sleep(POLL)
    return peak / 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))


def _kibibytes(pid: int) -> int:
    # The process may have ended.
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def medians_of(rounds: list[Round]) -> Round:
    """Return the medians of all figures."""
    found = {}
    for key in rounds[0]:
        figures = (dataclasses.astuple(each[key]) for each in rounds)
        found[key] = Cost(*(statistics.median(values) for values in zip(*figures, strict=True)))
    return found


def ratio(rounds: list[Round], kind: str, name: str, other: str, figure: str = "seconds") -> float:
    """Return the median of the ratios within the same round, because the speed of a machine drifts."""
    return statistics.median(getattr(each[kind, name], figure) / getattr(each[kind, other], figure) for each in rounds)


def report(rounds: list[Round], memory: Round) -> None:
    """Print a line for each command: medians, and their ratios to the baseline."""
    print(f"{'':32}{'s':>8}{'CPU s':>8}{'MB':>8}{'MiB RAM':>9}{'time':>8}{'size':>8}")
    last, medians = "", medians_of(rounds)
    for kind, name in memory:
        cost = medians[kind, name]
        if kind != last:
            print(f"{kind}, compared with {BASELINES[kind]}")
        last = kind
        time_ = ratio(rounds, kind, name, BASELINES[kind])
        size = f"{cost.size / 1e6:8.1f}" if cost.size else f"{'':8}"
        sizes = f"{ratio(rounds, kind, name, BASELINES[kind], 'size'):8.3f}" if cost.size else ""
        print(
            f"  {name:30}{cost.seconds:8.2f}{cost.cpu:8.2f}{size}{memory[kind, name].memory:9.1f}{time_:8.2f}{sizes}",
            flush=True,
        )


def goals(rounds: list[Round], memory: Round) -> dict[str, bool]:
    """Return whether each goal was met, by its description."""
    create, size = 1 / ratio(rounds, FIRST, OURS, TAR), ratio(rounds, FIRST, OURS, TAR, "size")
    restic = 1 / ratio(rounds, FIRST, OURS, RESTIC)
    verify, restore = ratio(rounds, VERIFY, OURS, SHA256SUM), ratio(rounds, RESTORE, OURS, UNTAR)
    most = max(cost.memory for (_, name), cost in memory.items() if name == OURS)
    return {
        f"a backup at least {GOAL_CREATE:g} times as fast as {TAR}: {create:.2f}": create >= GOAL_CREATE,
        f"at most {GOAL_SIZE:g} times its size: {size:.3f}": size <= GOAL_SIZE,
        f"at least {GOAL_RESTIC:g} times as fast as restic: {restic:.2f}": restic >= GOAL_RESTIC,
        f"verified in at most {GOAL_VERIFY:g} times the time of {SHA256SUM}: {verify:.2f}": verify <= GOAL_VERIFY,
        f"restored in at most {GOAL_RESTORE:g} times that of {UNTAR}: {restore:.2f}": restore <= GOAL_RESTORE,
        f"in less than {GOAL_MEMORY:g} MiB of memory: {most:.1f}": most < GOAL_MEMORY,
    }


def get_programs() -> None:
    """Install missing programs if run as root; exits with their names otherwise."""
    missing = sorted(package for program, package in PACKAGES.items() if not shutil.which(program))
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit(f"missing packages: {', '.join(missing)}; run: apt-get install {' '.join(missing)}")
    print(f"Installing {', '.join(missing)}", flush=True)
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--megabytes", type=int, default=panel_data.USUAL, help="size of the data; the goals apply to the default"
    )
    options = parser.parse_args()
    get_programs()
    # Four restored copies per round, plus the data and the backups.
    needed, free = options.megabytes * (4 * options.rounds + 10) * 1_000_000, shutil.disk_usage(SCRATCH).free
    if free < needed:
        sys.exit(
            f"{SCRATCH} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed: free space, or use fewer "
            "--rounds"
        )
    with tempfile.TemporaryDirectory(prefix="bench-backup-", dir=SCRATCH) as scratch:
        bench = Bench(Path(scratch), options.megabytes)
        for line in bench.describe():
            print(line, flush=True)
        memory = bench.round(0, watch=True)
        rounds = [bench.round(number) for number in range(1, options.rounds + 1)]
    print(f"\nMedians of {options.rounds} rounds; memory from a separate first round\n")
    report(rounds, memory)
    print(
        "\nrestic and borg encrypt and deduplicate; panelctl does neither. In the second backup, they write only the "
        "changes, panelctl writes everything.\n"
    )
    return print_goals(goals(rounds, memory))


if __name__ == "__main__":
    sys.exit(main())
