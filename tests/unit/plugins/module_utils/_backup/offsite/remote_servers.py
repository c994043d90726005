# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers for off-site copies: an append-only SFTP server by OpenSSH, and S3 by moto."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

# On Debian, sshd is not on the PATH of ordinary users.
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
# A stopped worker of xdist does not run the teardown of its fixtures.
_DIES_WITH_US = ["setpriv", "--pdeathsig", "TERM"]
SECRET = "do-not-tell-4711"
# The holder of the key can add and read files, and nothing else.
APPEND_ONLY = "remove,rmdir,rename,posix-rename,hardlink,symlink,setstat,fsetstat"


def missing():
    """Return the required programs that are missing."""
    return [
        name
        for name, path in (("rclone", shutil.which("rclone")), ("age", shutil.which("age")), ("sshd", SSHD))
        if not path
    ]


class Folder:
    """A folder on the SFTP server."""

    def __init__(self, server, path):
        self.section = server.section
        self.remote = f"off:{path}"
        self.path = path

    def files(self):
        return {file.name: file.read_bytes() for file in self.path.iterdir()} if self.path.exists() else {}

    def write(self, name, content):
        self.path.mkdir(exist_ok=True)
        (self.path / name).write_bytes(content)

    def remove(self, name):
        (self.path / name).unlink()


class Bucket:
    """A versioned bucket."""

    def __init__(self, server, name):
        self.section = server.section
        self.remote = f"off:{name}/host-1"
        self._name = name
        self._client = server.client
        self._client.create_bucket(Bucket=name)
        self._client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    def files(self):
        listed = self._client.list_objects_v2(Bucket=self._name, Prefix="host-1/").get("Contents", [])
        keys = [entry["Key"] for entry in listed]
        return {
            key.removeprefix("host-1/"): self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
            for key in keys
        }

    def write(self, name, content):
        self._client.put_object(Bucket=self._name, Key=f"host-1/{name}", Body=content)

    def remove(self, name):
        self._client.delete_object(Bucket=self._name, Key=f"host-1/{name}")


class Sftp:
    place = Folder

    def __init__(self, port, folder):
        self.section = f"""[off]
type = sftp
host = 127.0.0.1
port = {port}
user = {getpass.getuser()}
key_file = {folder / "user"}
known_hosts_file = {folder / "known"}
"""


class S3:
    place = Bucket

    def __init__(self, client, port):
        self.client = client
        self.section = f"""[off]
type = s3
provider = Other
endpoint = http://127.0.0.1:{port}
access_key_id = anybody
secret_access_key = {SECRET}
force_path_style = true
"""


@contextlib.contextmanager
def sftp(folder, denied=""):
    """Run an OpenSSH server as the current user, on a loopback port, with new keys."""
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    public = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "config").write_text(f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder / "host"}
AuthorizedKeysFile {folder / "user.pub"}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
ForceCommand internal-sftp {f"-P {denied}" if denied else ""}
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*_DIES_WITH_US, SSHD, "-f", folder / "config", "-D", "-e"], stderr=log) as server,
    ):
        try:
            answering(port, server)
            yield Sftp(port, folder)
        finally:
            server.terminate()


@contextlib.contextmanager
def s3():
    """Run moto's S3 in a thread."""
    import boto3  # noqa: PLC0415 (takes half a second)
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="anybody",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        yield S3(client, port)
    finally:
        server.stop()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def answering(port, server):
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert server.poll() is None, "sshd ended"
        time.sleep(0.05)
    raise AssertionError("sshd does not answer")
