# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Off-site copies, by the installed panelctl on real servers, and failures during transfers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import remote_servers
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.offsite import upload
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.offsite.remote import Remote
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory

# Pairs of tests share the combinations of remote and encryption, so that each one is tested in one of the two.
KINDS = [("sftp", True), ("append-only", False), ("s3", True)]
OTHER_KINDS = [(kind, not encrypted) for kind, encrypted in KINDS]
MANIFEST, ARCHIVE, INFO = ".manifest", ".tar.gz", ".info"


@pytest.fixture(scope="module", autouse=True)
def _programs():
    if gone := remote_servers.missing():
        reason = f"{', '.join(gone)} missing: apt-get install rclone age openssh-server"
        if os.environ.get("AAPANEL_TESTS_NEED_OFFSITE"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def servers(tmp_path_factory, _programs):
    """Servers by kind, each started on first use."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("servers")
        start = {
            "sftp": lambda: remote_servers.sftp(folder / "sftp"),
            "append-only": lambda: remote_servers.sftp(folder / "append-only", remote_servers.APPEND_ONLY),
            "s3": remote_servers.s3,
        }
        running = {}

        def server(kind):
            if kind not in running:
                running[kind] = stack.enter_context(start[kind]())
            return running[kind]

        yield server


class Host:
    """A host with sources, backups and panelctl."""

    def __init__(self, folder, program, settings):
        self.folder = folder
        self.program = program
        self.settings = settings
        self.backups = folder / "backups"
        self.state = folder / "state"
        self.env = dict(os.environ)

    def configure(self, **changes):
        self.settings = {**self.settings, **changes}
        (self.folder / "settings.json").write_text(json.dumps(self.settings))

    def offsite(self, **changes):
        self.configure(offsite={**self.settings["offsite"], **changes})

    def command(self, *arguments):
        return [sys.executable, "-I", self.program, *arguments]

    def panelctl(self, *arguments, status=0):
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, env=self.env)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    def create(self):
        return self.panelctl("create", "--json")["name"]

    def states(self):
        return {found["name"]: found["state"] for found in json.loads(self._list())}

    def _list(self):
        return subprocess.run(self.command("list", "--json"), capture_output=True, check=False).stdout

    def dies(self):
        """Simulate a replacement host: an empty disk, with the settings and the keyring that were kept off the host."""
        shutil.rmtree(self.backups)
        shutil.rmtree(self.state)

    def journal(self):
        return json.loads((self.state / "offsite.json").read_text())

    def instead_of_rclone(self, script):
        """Replace rclone by a shell script, which finds the real rclone in $RCLONE."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "rclone").write_text(f"#!/bin/bash\nRCLONE={shutil.which('rclone')}\n{script}\n")
        (folder / "rclone").chmod(0o755)
        self.env["PATH"] = f"{folder}:{os.environ['PATH']}"

    def rclone_itself(self):
        self.env["PATH"] = os.environ["PATH"]


@pytest.fixture
def host(tmp_path, install):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content\n")
    settings = {
        "folder": str(tmp_path / "backups"),
        "state_dir": str(tmp_path / "state"),
        "keyring": str(tmp_path / "keyring.json"),
        "host": "host-1",
        "sources": [{"kind": "files", "name": "data", "path": str(tmp_path / "data")}],
    }
    found = Host(tmp_path, install("_backup", settings), settings)
    found.panelctl("key-rotate")
    return found


@pytest.fixture
def attach(host, servers, tmp_path):
    """Configure a remote of a kind; returns the folder or bucket."""

    def attach_to(kind, *, encrypted=False):
        server = servers(kind)
        place = server.place(server, tmp_path / "remote" if kind != "s3" else f"b{abs(hash(tmp_path))}")
        config = tmp_path / "rclone.conf"
        config.write_text(place.section)
        config.chmod(0o600)
        offsite = {"remote": place.remote, "config": str(config)}
        if encrypted:
            identity = new_identity(tmp_path / "identity")
            recipients = tmp_path / "recipients"
            recipients.write_text(subprocess.check_output(["age-keygen", "-y", identity], text=True))
            offsite |= {"recipients": str(recipients), "identity": str(identity)}
        host.configure(offsite=offsite)
        return place

    return attach_to


def new_identity(path):
    subprocess.run(["age-keygen", "-o", path], check=True, capture_output=True)
    return path


@pytest.fixture
def place(attach):
    return attach("sftp")


def files_of(*names, ending=""):
    return sorted(f"{name}{suffix}{ending}" for name in names for suffix in (ARCHIVE, INFO, MANIFEST))


@pytest.mark.parametrize(("kind", "encrypted"), KINDS)
def test_push_then_fetch_and_adopt_on_a_replacement_host(kind, encrypted, host, attach):
    place = attach(kind, encrypted=encrypted)
    first = host.create()
    assert "there: no" in host.panelctl("remote", status=3)
    told = host.panelctl("push", "--json")
    assert (told["result"], told["sent"], told["newest"]) == ("pushed", [first], first)
    there = place.files()
    assert sorted(there) == files_of(first, ending=".age" * encrypted)
    assert any(b"content" in content or b"purpose" in content for content in there.values()) is not encrypted
    assert host.journal()["newest"] == first
    host.panelctl("remote")

    # A second push sends nothing.
    assert host.panelctl("push", "--json")["sent"] == []
    assert place.files() == there
    later = host.create()
    assert host.panelctl("push", "--json")["sent"] == [later]

    here = {path.name: path.read_bytes() for path in host.backups.iterdir()}
    host.dies()
    assert f"restore {later}" in host.panelctl("fetch", "--adopt")
    assert host.states() == {later: "good"}
    host.panelctl("restore", "--to", str(host.folder / "restored"))
    assert (host.folder / "restored/files/data/file").read_text() == "content\n"
    assert host.panelctl("create", "--json")["seq"] == 3
    assert host.panelctl("fetch", "--all", "--adopt", "--json")["adopted"] == [first]
    assert {path.name: path.read_bytes() for path in host.backups.iterdir() if path.name in here} == here
    assert list(host.states().values()) == ["good"] * 3
    # A push sends no fetched backup, and does not read it back.
    assert len(host.panelctl("push", "--json")["sent"]) == 1
    assert len(place.files()) == 9
    host.panelctl("remote")


@pytest.mark.parametrize(("kind", "encrypted"), OTHER_KINDS)
def test_killed_push_is_resumed(kind, encrypted, host, attach):
    place = attach(kind, encrypted=encrypted)
    (host.folder / "data" / "large").write_bytes(os.urandom(12_000_000))
    name = host.create()
    host.offsite(bandwidth="4M")
    with subprocess.Popen(host.command("push"), start_new_session=True, stderr=subprocess.DEVNULL) as running:
        journal = host.state / "offsite.json"
        while not journal.exists() or ARCHIVE not in journal.read_text():
            assert running.poll() is None
            time.sleep(0.05)
        time.sleep(1.5)
        os.killpg(running.pid, signal.SIGKILL)
    there = place.files()
    assert not [file for file in there if MANIFEST in file]
    assert all(len(content) < 12_000_000 for content in there.values())
    assert host.panelctl("remote", "--json", status=3)[0]["there"] == ("unfinished" if there else "")
    host.offsite(bandwidth="")
    assert host.panelctl("push", "--json")["sent"] == [name]
    host.dies()
    assert host.panelctl("fetch", "--adopt", "--json")["adopted"] == [name]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_damaged_upload_is_noticed_before_the_copy_is_complete(encrypted, host, attach):
    place = attach("append-only", encrypted=encrypted)
    name = host.create()
    file = next(path for path in files_of(name, ending=".age" * encrypted) if ARCHIVE in path)
    broken = f"dd of={place.path}/{file} seek=100 bs=1 conv=notrunc status=none"
    host.instead_of_rclone(f"""
"$RCLONE" "$@"; status=$?
case "$*" in rcat*{ARCHIVE}*) printf '\\377\\377' | {broken};; esac
exit $status""")
    assert "something else than what was sent" in host.panelctl("push", status=1)
    assert list(place.files()) == [file]
    assert host.journal()["time"] == ""
    host.panelctl("remote", status=3)
    host.rclone_itself()
    assert host.panelctl("push", "--json")["sent"] == [name]
    host.dies()
    host.panelctl("fetch", "--adopt")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("suffix", [ARCHIVE, MANIFEST])
def test_altered_copy_is_not_fetched(suffix, encrypted, host, attach):
    place = attach("sftp", encrypted=encrypted)
    name = host.create()
    host.panelctl("push")
    host.dies()
    file = f"{name}{suffix}" + ".age" * encrypted
    good = place.files()[file]
    broken = [good[:-40] + bytes([good[-40] ^ 1]) + good[-39:], good[:-1], good + b"\n", b""]
    for content in broken:
        place.write(file, content)
        host.panelctl("fetch", "--adopt", status=4)
        assert not list(host.backups.iterdir())
    place.remove(file)
    host.panelctl("fetch", "--adopt", status=1 if suffix == MANIFEST else 4)
    place.write(file, good)
    host.panelctl("fetch", "--adopt")
    assert host.states() == {name: "good"}


def test_endless_archive_does_not_fill_the_disk(host, place):
    name = host.create()
    host.panelctl("push")
    host.dies()
    host.instead_of_rclone(f"""
case "$*" in cat*{ARCHIVE}*) exec cat /dev/zero;; esac
exec "$RCLONE" "$@" """)
    assert "more than the" in host.panelctl("fetch", name, status=4)
    assert not list(host.backups.iterdir())


def test_copy_of_another_host_or_name_is_not_fetched(host, place):
    first, second = host.create(), host.create()
    host.panelctl("push")
    there = place.files()
    for suffix in (ARCHIVE, INFO, MANIFEST):
        place.write(f"{second}{suffix}", there[f"{first}{suffix}"])
    host.dies()
    assert f"the manifest of {first}" in host.panelctl("fetch", status=4)
    host.configure(host="host-2")
    assert "another installation" in host.panelctl("fetch", first, status=4)
    assert not list(host.backups.iterdir())


def test_wrong_or_missing_identity(host, attach):
    attach("sftp", encrypted=True)
    host.create()
    host.panelctl("push")
    host.dies()
    other = new_identity(host.folder / "other")
    assert "no identity matched" in host.panelctl("fetch", "--identity", str(other), status=1)
    identity = host.settings["offsite"]["identity"]
    host.offsite(identity="")
    assert "--identity FILE" in host.panelctl("fetch", status=1)
    assert not list(host.backups.iterdir())
    Path(identity).chmod(0o644)
    assert "other users can read" in host.panelctl("fetch", "--identity", identity, status=1)
    Path(identity).chmod(0o600)
    host.panelctl("fetch", "--identity", identity)


@pytest.mark.parametrize("kind", ["sftp", "s3"])
def test_unreachable_remote(kind, host, attach):
    attach(kind)
    host.create()
    config = Path(host.settings["offsite"]["config"])
    nobody = remote_servers.free_port()
    text = [f"port = {nobody}" if line.startswith("port =") else line for line in config.read_text().splitlines()]
    text = [f"endpoint = http://127.0.0.1:{nobody}" if line.startswith("endpoint =") else line for line in text]
    config.write_text("\n".join(text))
    for command in ("push", "fetch", "remote"):
        told = host.panelctl(command, status=1)
        assert "refused" in told
        assert remote_servers.SECRET not in told
    assert not (host.state / "offsite.json").exists()


def test_arguments_hold_no_secret_and_environment_nothing_of_the_operator(host, attach):
    attach("s3")
    log = host.folder / "log"
    host.instead_of_rclone(f'(echo "$@"; env) >> {log}\nexec "$RCLONE" "$@"')
    host.env |= {"RCLONE_DRY_RUN": "true", "RCLONE_CONFIG_OFF_TYPE": "local", "AWS_CA_BUNDLE": "/dev/null"}
    name = host.create()
    assert host.panelctl("push", "--json")["sent"] == [name]
    told = log.read_text()
    assert "rcat" in told
    assert remote_servers.SECRET not in told
    for word in ("DRY_RUN", "CONFIG_OFF", "AWS_"):
        assert word not in told


def test_rclone_does_not_write_its_configuration(host, place):
    config = Path(host.settings["offsite"]["config"])
    before = config.read_text()
    host.create()
    host.panelctl("push")
    assert config.read_text() == before


@pytest.mark.parametrize("suffix", [ARCHIVE, MANIFEST])
def test_different_file_of_the_same_name_is_not_overwritten(suffix, host, place):
    first, second = host.create(), host.create()
    place.write(f"{first}{suffix}", b"somebody's")
    assert "is not overwritten" in host.panelctl("push", status=4)
    there = place.files()
    assert there[f"{first}{suffix}"] == b"somebody's"
    assert set(files_of(second)) <= set(there)
    assert host.journal()["time"] == ""
    place.remove(f"{first}{suffix}")
    assert host.panelctl("push", "--json")["sent"] == [first]


@pytest.mark.parametrize("status", [1, 4])
def test_incomplete_push_is_recorded_as_failed(status, host, place):
    figures = host.folder / "figures"
    figures.mkdir()
    host.configure(textfile_dir=str(figures))
    name = host.create()
    if status == 1:
        host.instead_of_rclone('case "$1" in rcat) cat >/dev/null; exit 1;; *) exec "$RCLONE" "$@";; esac')
    else:
        place.write(f"{name}{MANIFEST}", b"somebody's")
    host.panelctl("push", status=status)
    problems = host.panelctl("status", "--json", status=3)["problems"]
    assert [problem.startswith(f"the last `push` failed: {name}: ") for problem in problems] == [True]
    assert 'failures_total{run="push",set=""} 1\n' in (figures / "aapanel_backup.prom").read_text()
    if status == 1:
        host.rclone_itself()
    else:
        place.remove(f"{name}{MANIFEST}")
    host.panelctl("push")
    assert host.panelctl("status", "--json")["problems"] == []


def test_changed_size_of_a_copy_is_reported(host, place):
    name = host.create()
    host.panelctl("push")
    place.write(f"{name}{INFO}", b"Name: other\n")
    assert "is not overwritten" in host.panelctl("push", status=4)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_copies_are_recognised_without_the_upload_state(encrypted, host, attach):
    place = attach("append-only", encrypted=encrypted)
    host.create()
    host.panelctl("push")
    there = place.files()
    for lost in (None, "", "{}", '{"files": 1}'):
        (host.state / "offsite.json").unlink()
        if lost is not None:
            (host.state / "offsite.json").write_text(lost)
        assert host.panelctl("push", "--json")["sent"] == []
    assert place.files() == there


def test_enabling_encryption_sends_nothing_twice(host, attach):
    place = attach("sftp")
    first = host.create()
    host.panelctl("push")
    new_identity(host.folder / "identity")
    (host.folder / "recipients").write_text(
        subprocess.check_output(["age-keygen", "-y", host.folder / "identity"], text=True)
    )
    host.offsite(recipients=str(host.folder / "recipients"), identity=str(host.folder / "identity"))
    second = host.create()
    assert host.panelctl("push", "--json")["sent"] == [second]
    assert sorted(place.files()) == sorted(files_of(first) + files_of(second, ending=".age"))
    host.dies()
    assert host.panelctl("fetch", "--all", "--adopt", "--json")["adopted"] == [first, second]


def keep(count):
    return {"full": {"retention": {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": count}}}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_copies_of_pruned_backups_stay_unless_prune_is_set(encrypted, host, attach):
    place = attach("sftp", encrypted=encrypted)
    host.configure(sets=keep(1))
    first = host.create()
    host.panelctl("push")
    second = host.create()
    host.panelctl("prune")
    host.panelctl("push")
    assert len(place.files()) == 6
    assert "pruned" in host.panelctl("fetch", first, status=4)
    assert host.panelctl("fetch", first, "--again", "--json")["adopted"] == [first]
    assert list(host.states()) == [first, second]
    host.panelctl("verify", first)
    assert host.panelctl("prune", "--json")["removed"] == [first]
    assert host.panelctl("fetch", "--all", "--json")["here"] == [second]
    place.write("somebody's", b"")
    host.offsite(prune=True)
    log = host.folder / "log"
    host.instead_of_rclone(f'echo "$@" >> {log}\nexec "$RCLONE" "$@"')
    assert host.panelctl("push", "--json")["removed"] == [first]
    removed = [line.split(first)[1].split()[0] for line in log.read_text().splitlines() if "deletefile" in line]
    assert [file.removesuffix(".age") for file in removed] == [MANIFEST, INFO, ARCHIVE]
    assert sorted(place.files()) == sorted([*files_of(second, ending=".age" * encrypted), "somebody's"])
    assert host.panelctl("push", "--json")["removed"] == []


def test_copies_are_removed_only_after_new_ones_are_complete(host, place):
    host.configure(sets=keep(1))
    host.offsite(prune=True)
    first = host.create()
    host.panelctl("push")
    second = host.create()
    host.panelctl("prune")
    place.write(f"{second}{ARCHIVE}", b"somebody's")
    assert host.panelctl("push", "--json", status=4)["removed"] == []
    assert set(files_of(first)) <= set(place.files())


def test_broken_backup_is_not_sent(host, place):
    name = host.create()
    archive = host.backups / f"{name}{ARCHIVE}"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert "not what was signed" in host.panelctl("push", status=4)
    assert place.files() == {}


@pytest.mark.parametrize("gone", [[MANIFEST], [ARCHIVE, INFO, MANIFEST]])
def test_missing_or_broken_backup_is_fetched(gone, host, place):
    name = host.create()
    host.panelctl("push")
    for suffix in gone:
        (host.backups / f"{name}{suffix}").unlink()
    assert host.states() == {name: "missing"}
    assert host.panelctl("fetch", "--json")["fetched"] == [name]
    assert host.states() == {name: "good"}
    assert host.panelctl("fetch", "--json")["here"] == [name]
    archive = host.backups / f"{name}{ARCHIVE}"
    archive.write_bytes(archive.read_bytes()[:-1])
    host.panelctl("fetch", name)
    host.panelctl("verify")


def test_killed_fetch_leaves_nothing_and_a_backup_does_not_disturb_a_running_one(host, place):
    name = host.create()
    host.panelctl("push")
    host.dies()
    host.instead_of_rclone(f"""
case "$*" in cat*{ARCHIVE}*) "$RCLONE" "$@" | head -c 100; exec sleep 60;; esac
exec "$RCLONE" "$@" """)
    with subprocess.Popen(host.command("fetch"), start_new_session=True, env=host.env) as running:
        while not list(host.backups.glob(f".fetched-*{ARCHIVE}")):
            assert running.poll() is None
            time.sleep(0.05)
        host.create()
        assert len(list(host.backups.glob(".fetched-*"))) == 2
        os.killpg(running.pid, signal.SIGKILL)
    host.rclone_itself()
    assert name not in host.states()
    host.panelctl("fetch", "--adopt", name)
    assert not list(host.backups.glob(".fetched-*"))


def test_transfer_blocks_other_transfers_but_no_backup(host, place):
    host.create()
    with (host.state / "offsite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host.create()
        assert "in progress" in host.panelctl("push", "--wait", "0", status=5)
        assert "in progress" in host.panelctl("fetch", "--wait", "0", status=5)
        # A refused run is not recorded.
        assert "push" not in host.panelctl("status", "--json")["runs"]
    with (host.state / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert len(host.panelctl("push", "--json")["sent"]) == 2


def test_host_with_own_backups_adopts_others(host, place):
    old = [host.create() for _ in range(3)]
    host.panelctl("push")
    host.dies()
    own = host.create()
    host.panelctl("fetch", "--all")
    assert sorted(host.states().values()) == ["good", *["replayed"] * 3]
    assert "panelctl backup adopt" in host.panelctl("list", status=4)
    host.panelctl("restore", old[0], "--to", str(host.folder / "restored"), status=4)
    assert "either names of backups or --all" in host.panelctl("adopt", status=2)
    assert host.panelctl("adopt", old[1], "--json")["adopted"] == [old[1]]
    assert host.panelctl("adopt", "--all", "--json")["adopted"] == [old[0], old[2]]
    assert host.panelctl("adopt", old[1], "--json")["here"] == [old[1]]
    assert "nothing to adopt" in host.panelctl("adopt", "--all")
    # Ordered by time, although the oldest backups of both hosts have the same number.
    assert [found["name"] for found in host.panelctl("list", "--json")] == [*old, own]
    made = host.panelctl("create", "--json")
    assert made["seq"] == 4
    assert [found["name"] for found in host.panelctl("list", "--json")] == [*old, own, made["name"]]
    host.configure(sets=keep(2))
    assert host.panelctl("prune", "--json")["removed"] == old
    assert "pruned" in host.panelctl("fetch", old[0], "--adopt", status=4)


def test_backups_that_cannot_be_adopted(host, place):
    name = host.create()
    host.panelctl("push")
    files = {path: path.read_bytes() for path in host.backups.iterdir()}
    host.dies()
    host.create()
    host.panelctl("fetch")
    archive = host.backups / f"{name}{ARCHIVE}"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert "not what was signed" in host.panelctl("adopt", name, status=4)
    archive.write_bytes(files[archive])
    host.configure(host="host-2")
    assert "another installation" in host.panelctl("adopt", name, status=4)
    host.configure(host="host-1")
    assert "no such backup" in host.panelctl("adopt", "backup_20260101T000000Z_000001", status=1)
    host.panelctl("adopt", name)
    host.configure(sets=keep(1))
    host.panelctl("prune")
    for path, content in files.items():
        path.write_bytes(content)
    assert "pruned" in host.panelctl("adopt", name, status=4)


def test_settings_that_expose_secrets_are_refused(host, place):
    host.create()
    config = Path(host.settings["offsite"]["config"])
    good = config.read_text()
    host.offsite(remote=f":sftp,host=localhost,pass={remote_servers.SECRET}:")
    told = host.panelctl("push", status=1)
    assert "name:path" in told
    assert remote_servers.SECRET not in told
    host.offsite(remote="other:path")
    assert "no section [other]" in host.panelctl("push", status=1)
    host.offsite(remote=place.remote)
    for text, word in [
        (good.replace("known_hosts_file", "#"), "known_hosts_file"),
        (remote_servers.SECRET, "not an rclone configuration"),
        ("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nx", "not an rclone configuration"),
    ]:
        config.write_text(text)
        told = host.panelctl("push", status=1)
        assert word in told
        assert remote_servers.SECRET not in told
    config.write_text(good)
    config.chmod(0o640)
    assert "other users can read" in host.panelctl("push", status=1)
    config.unlink()
    assert "No such file" in host.panelctl("push", status=1)
    host.configure(offsite=None)
    assert "no remote" in host.panelctl("push", status=1)


def test_empty_remote(host, place):
    assert "has no backup" in host.panelctl("fetch", status=1)
    assert "there are no backups" in host.panelctl("remote")
    assert host.panelctl("push", "--json")["sent"] == []
    name = host.create()
    assert "has no backup_2026" in host.panelctl("fetch", "backup_20260101T000000Z_000001", status=1)
    place.write(f"{name}{ARCHIVE}", b"half of it")
    assert "has no" in host.panelctl("fetch", name, status=1)


def test_push_stops_after_two_consecutive_failures(store, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    names = [create.create(store, [directory.Files("data", tmp_path / "data")]).name for _ in range(5)]
    asked, refused = [], {names[0], names[2], names[3]}

    def put(_, file, content, size):
        asked.append(file.split(".")[0])
        if asked[-1] in refused:
            raise BackupError("no room")
        meter = upload.Meter()
        for data in content():
            meter.add(data)
        return meter

    monkeypatch.setattr(Remote, "files", lambda _: {})
    monkeypatch.setattr(Remote, "put", put)
    done = upload.push(store, Remote("off:", tmp_path))
    assert done.sent == [names[1]]
    assert [problem.name for problem in done.problems] == [names[0], names[2], names[3]]
    assert names[4] not in asked
    assert upload.UploadState.load(store.state_dir / "offsite.json").time == ""


def test_file_changed_during_upload_is_not_completed(store, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    name = create.create(store, [directory.Files("data", tmp_path / "data")]).name

    def put(_, file, content, size):
        archive = store.folder / f"{name}{ARCHIVE}"
        archive.write_bytes(bytes(len(archive.read_bytes())))
        list(content())
        raise AssertionError("it came to its end")

    monkeypatch.setattr(Remote, "files", lambda _: {})
    monkeypatch.setattr(Remote, "put", put)
    done = upload.push(store, Remote("off:", tmp_path))
    assert "changed while it was being sent" in done.problems[0].text
    assert done.problems[0].status == 4


@pytest.mark.parametrize("suffix", [ARCHIVE, INFO, MANIFEST])
def test_backup_pruned_during_upload_is_left_out(suffix, store, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    first, second = (create.create(store, [directory.Files("data", tmp_path / "data")]).name for _ in range(2))

    def put(_, file, content, size):
        meter = upload.Meter()
        for data in content():
            meter.add(data)
        return meter

    def prune(text):
        if text == f"sending {first}{suffix}":
            with store.locked() as ledger:
                (found,) = (backup for backup in store.backups() if backup.name == first)
                store.remove(found, ledger, "2026-11-30T00:00:00Z")

    monkeypatch.setattr(Remote, "files", lambda _: {})
    monkeypatch.setattr(Remote, "put", put)
    done = upload.push(store, Remote("off:", tmp_path), report_progress=prune)
    assert (done.sent, done.problems) == ([second], [])
