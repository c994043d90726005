# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import archive, tree
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError


def names(path):
    """Return the sorted names in a directory."""
    return sorted(item.name for item in Path(path).iterdir())


def tar(path, *members):
    """Write a tar archive; a member is a name, a type, and a content or link target."""
    with tarfile.open(path, "w:gz") as target:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o6755
            data = value.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = value
            target.addfile(info, io.BytesIO(data))
    return path


FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/evil", FILE, "x")],
        [("../evil", FILE, "x")],
        [("a/../../evil", FILE, "x")],
        [("..", FOLDER, "")],
        [("../evil", LINK, "x")],
        [("../evil", FOLDER, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("null", tarfile.CHRTYPE, "")],
        [("disk", tarfile.BLKTYPE, "")],
        [("hard", HARD, "/etc/passwd")],
        [("hard", HARD, "../../../../etc/passwd")],
        [("hard", HARD, "missing")],
        [("link", LINK, "/etc/passwd"), ("hard", HARD, "link")],
        [("a", FILE, "x"), ("a/b", FILE, "x")],
    ],
)
def test_malicious_tar(tmp_path, members):
    (tmp_path / "evil").mkdir()
    packed = tar(tmp_path / "evil" / "a.tar.gz", *members)
    before = names(tmp_path)
    with pytest.raises(ReleaseError):
        archive.extract(packed, tmp_path / "evil" / "out")
    assert names(tmp_path) == before
    assert names(tmp_path / "evil") == ["a.tar.gz", "out"]


def test_no_file_is_written_through_a_link(tmp_path):
    """A link out of the tree, then a file below that link."""
    (tmp_path / "victim").mkdir()
    packed = tar(tmp_path / "a.tar.gz", ("way", LINK, "../victim"), ("way/file", FILE, "owned"))
    with contextlib.suppress(ReleaseError):
        archive.extract(packed, tmp_path / "out")
    assert list((tmp_path / "victim").iterdir()) == []


def test_links_that_leave_the_tree_in_combination_are_refused(tmp_path):
    """The text of each link stays inside the tree."""
    packed = tar(tmp_path / "a.tar.gz", ("a/b/here", LINK, "."), ("a/out", LINK, "b/here/../../../victim"))
    archive.extract(packed, tmp_path / "out")
    with pytest.raises(ReleaseError, match="outside of the source"):
        tree.digest(tmp_path / "out")


def test_modes_and_repeated_members(tmp_path):
    packed = tar(
        tmp_path / "a.tar.gz",
        ("./a", FILE, "old"),
        ("l", LINK, "a"),
        ("a", FILE, "new"),
        ("h", HARD, "a"),
        ("d", FOLDER, ""),
    )
    archive.extract(packed, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "a").read_text() == (out / "h").read_text() == (out / "l").read_text() == "new"
    assert (out / "a").stat().st_mode & 0o7777 == 0o755
    assert (out / "a").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_an_invalid_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"a\.zip is damaged, or not a tar or zip archive"):
        archive.extract(tmp_path / "a.zip", tmp_path / "out")


def test_truncated_archive(tmp_path):
    packed = tar(tmp_path / "a.tar.gz", *((f"f{number}", FILE, os.urandom(2000).hex()) for number in range(50)))
    packed.write_bytes(packed.read_bytes()[:50_000])
    with pytest.raises(ReleaseError, match="damaged"):
        archive.extract(packed, tmp_path / "out")


def test_an_archive_larger_than_the_disk(tmp_path, monkeypatch):
    packed = tar(tmp_path / "a.tar.gz", ("big", FILE, "x" * 5000))
    usage = type("Usage", (), {"free": archive.MIN_FREE_BYTES + 4999})()
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ReleaseError, match=r"big needs .* free"):
        archive.extract(packed, tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_malicious_zip(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr(name, "x")
    with pytest.raises(ReleaseError, match="a path outside of it"):
        archive.extract(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_zip_links_and_modes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        for name, mode, data in (
            ("top/run", 0o100755, "x"),
            ("top/link", 0o120777, "run"),
            ("top/plain", 0o100600, ""),
        ):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            target.writestr(info, data)
    archive.extract(tmp_path / "a.zip", tmp_path / "out")
    top = archive.strip_top(tmp_path / "out")
    assert top.name == "top"
    assert [entry.kind + entry.path for entry in tree.entries(top)] == ["llink", "fplain", "xrun"]


def test_only_a_single_directory_is_stripped(tmp_path):
    (tmp_path / "one").mkdir()
    assert archive.strip_top(tmp_path) == tmp_path / "one"
    (tmp_path / "two").write_text("")
    assert archive.strip_top(tmp_path) == tmp_path


@contextlib.contextmanager
def server(answer):
    """Run an HTTP server; yields its address and the list of its requests."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            answer(self)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{listening.server_port}", seen
        finally:
            listening.shutdown()


def serve(content):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_download_sends_credentials_to_one_server_only(tmp_path):
    with server(serve(b"content")) as (second, seen_second):

        def redirect(handler):
            handler.send_response(302)
            # A different name counts as a different server, even for the same machine.
            handler.send_header("Location", f"http://{second.replace('127.0.0.1', 'localhost')}/there")
            handler.end_headers()

        with server(redirect) as (first, seen_first):
            digest = archive.download(f"http://me:p%40ss@{first}/a.zip", tmp_path / "a", {}, 10)
    assert digest == tree.file_digest(tmp_path / "a")
    assert seen_first == [("/a.zip", "Basic " + base64.b64encode(b"me:p@ss").decode())]
    assert seen_second == [("/there", None)]


def test_download_uses_the_given_proxy(tmp_path):
    with server(serve(b"by proxy")) as (proxy, seen):
        environment = {"http_proxy": f"http://{proxy}", "no_proxy": "inside.invalid"}
        archive.download("http://outside.invalid/a.zip", tmp_path / "a", environment, 10)
        assert seen == [("http://outside.invalid/a.zip", None)]
        with pytest.raises(ReleaseError, match=r"http://inside\.invalid/a\.zip cannot be downloaded"):
            archive.download("http://inside.invalid/a.zip", tmp_path / "b", environment, 10)
        assert len(seen) == 1


def test_download_error_omits_the_password(tmp_path):
    with server(lambda handler: handler.send_error(403)) as (address, _), pytest.raises(ReleaseError) as error:
        archive.download(f"http://me:hunter22@{address}/a.zip", tmp_path / "a", {}, 10)
    assert "HTTP 403" in error.value.message
    assert "hunter22" not in error.value.message


def test_download_times_out(tmp_path):
    released = threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.end_headers()
        released.wait(30)

    with server(stall) as (address, _):
        try:
            with pytest.raises(ReleaseError, match="cannot be downloaded"):
                archive.download(f"http://{address}/a.zip", tmp_path / "a", {}, 1)
        finally:
            released.set()
