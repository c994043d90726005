# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for the example panel, with requests of visitors, scripts and attackers."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import stat
import time

import pytest
from panel_store import paths


def csrf(page) -> str:
    return re.search(r'name="csrf_token" value="([^"]+)"', page.text)[1]


def sign_in(client, name="admin", password=None, path="/login", **more):
    token = csrf(client.get(path))
    if password is None:
        client.application.test_cli_runner().invoke(args=["create-admin"])
        password = (paths.DATA / "default.pl").read_text().strip()
    return client.post(path, data={"name": name, "password": password, "csrf_token": token}, **more)


# Pages


def test_front_page_shows_items_escaped(client, script):
    script.post("/api/items", json={"title": "<script>alert(1)</script>"})
    page = client.get("/")
    assert page.status_code == 200
    assert "&lt;script&gt;alert(1)" in page.text
    assert "not counted (no Redis)" in page.text


def test_front_page_works_without_the_database(client):
    (paths.DATA / "default.db").unlink()
    page = client.get("/")
    assert page.status_code == 200
    assert "The database does not answer." in page.text


def test_without_redis_only_the_counter_is_missing(panel, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://:hidden-password@127.0.0.1:1/0")
    page = panel.application.create_app().test_client().get("/")
    assert page.status_code == 200
    assert "not counted" in page.text
    assert "hidden-password" not in (paths.LOGS / "panel.log").read_text()


def test_version_names_release_and_slot(client, monkeypatch):
    monkeypatch.setenv("AAPANEL_RELEASE", "1.0-ab12")
    monkeypatch.setenv("AAPANEL_SLOT", "green")
    version = client.get("/version").json
    assert (version["release"], version["slot"]) == ("1.0-ab12", "green")
    assert version["version"] == (paths.RELEASE / "VERSION").read_text().strip()


def test_every_linked_static_file_exists_and_has_a_content_hash(client):
    sign_in(client)
    for page in ("/", "/panel", "/login"):
        found = re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get(page).text)
        assert found
        for address in found:
            assert re.search(r"\?v=[0-9a-f]{12}$", address)
            assert client.get(address).status_code == 200


def test_no_page_needs_another_host_or_an_inline_script(client):
    sign_in(client)
    for page in ("/", "/panel", "/login", "/nowhere"):
        answer = client.get(page)
        assert "://" not in answer.text
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", answer.text)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("path", "kind"), [("/nowhere", "text/html"), ("/api/nowhere", "application/json")])
def test_an_error_is_html_for_pages_and_json_for_the_api(client, path, kind):
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, kind)


# Signing in


@pytest.mark.parametrize(
    ("agent", "peer", "real_ip", "status"),
    [
        ("Mozilla/5.0", "192.0.2.7", None, 200),
        ("Mozilla/5.0", "", "192.0.2.7", 200),
        ("Mozilla/5.0", "", None, 404),
        ("Mozilla/5.0", "", "not an address", 404),
        ("curl/8.5", "192.0.2.7", None, 404),
        ("", "192.0.2.7", None, 404),
    ],
)
def test_login_page_needs_a_browser_with_an_address(client, agent, peer, real_ip, status):
    headers = {"User-Agent": agent} | ({"X-Real-IP": real_ip} if real_ip else {})
    assert client.get("/login", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).status_code == status


@pytest.mark.parametrize(
    ("peer", "real_ip", "ip"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::1", "2001:db8::9", "2001:db8::9"),
        ("", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, 10.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "<script>", "127.0.0.1"),
    ],
)
def test_only_a_local_proxy_may_name_the_client(client, peer, real_ip, ip):
    answer = client.get("/api/whoami", headers={"X-Real-IP": real_ip}, environ_overrides={"REMOTE_ADDR": peer})
    assert answer.json["ip"] == ip


def test_login_path_follows_its_file(client):
    assert client.get("/login").status_code == 200
    (paths.DATA / "admin_path.pl").write_text("/s3cret\n")
    assert client.get("/login").status_code == 404
    assert client.get("/s3cret").status_code == 200


def test_sign_in_and_out(client):
    assert client.get("/panel").status_code == 404
    before = csrf(client.get("/login"))
    answer = sign_in(client)
    assert (answer.status_code, answer.location) == (302, "/panel")
    page = client.get("/panel")
    assert page.status_code == 200
    assert csrf(page) != before, "the token from before the login must be invalid after it"
    assert client.post("/logout").status_code == 400
    assert client.post("/logout", data={"csrf_token": csrf(page)}).status_code == 302
    assert client.get("/panel").status_code == 404


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_session_cookie_is_protected(client, scheme, secure):
    cookie = client.get("/login", base_url=f"{scheme}://panel.test").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ("Secure" in cookie) is secure


@pytest.mark.parametrize("name", ["admin", "nobody\n2026 login of 'admin' from 192.0.2.1"])
def test_failed_login_is_one_log_line_that_ends_with_the_address(client, name):
    sign_in(client)
    before = (paths.LOGS / "panel.log").read_text().count("\n")
    client.delete_cookie("panel_session")
    answer = sign_in(client, name, "wrong")
    assert answer.status_code == 401
    assert "wrong" in answer.text
    lines = (paths.LOGS / "panel.log").read_text().splitlines()[before:]
    assert len(lines) == 1
    assert lines[0].endswith("from 192.0.2.7")
    assert "login failed for" in lines[0]


def test_login_without_the_csrf_token_is_refused(client):
    sign_in(client)
    password = (paths.DATA / "default.pl").read_text().strip()
    client.delete_cookie("panel_session")
    assert client.post("/login", data={"name": "admin", "password": password}).status_code == 400
    assert client.post("/login", data={"name": "admin", "password": password, "csrf_token": ""}).status_code == 400


def test_first_user_is_created_once_with_a_random_password(app):
    run = app.test_cli_runner().invoke
    assert "Created admin" in run(args=["create-admin"]).output
    secret = paths.DATA / "default.pl"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text().strip()) >= 20
    assert secret.read_text().strip() not in run(args=["create-admin"]).output
    assert "a user already" in run(args=["create-admin"]).output
    with sqlite3.connect(paths.DATA / "default.db") as store:
        rows = store.execute("SELECT name, password_hash FROM users").fetchall()
    assert [name for name, _ in rows] == ["admin"]
    assert secret.read_text().strip() not in rows[0][1]


def test_given_password_is_used_and_not_stored_in_plain_text(client, monkeypatch):
    monkeypatch.setenv("PANEL_ADMIN_PASSWORD", "given by the vault")
    assert sign_in(client, password="given by the vault").status_code == 302
    assert not (paths.DATA / "default.pl").exists()


# Writing


WRITES = [
    ("POST", "/api/items"),
    ("PUT", "/api/items/1"),
    ("PATCH", "/api/items/1"),
    ("DELETE", "/api/items/1"),
    ("POST", "/api/upload"),
    ("POST", "/api/background"),
    ("PUT", "/api/language"),
]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Bearer \xff", "Basic token-of-the-tests"])
def test_writes_need_the_token(client, header):
    headers = {"Authorization": header} if header else {}
    answers = {
        (method, path): client.open(path, method=method, json={"title": "x"}, headers=headers).status_code
        for method, path in WRITES
    }
    assert answers == dict.fromkeys(WRITES, 401)


def test_the_list_of_writes_is_complete(app):
    writing = {"POST", "PUT", "PATCH", "DELETE"}
    rules = {
        (method, re.sub(r"<[^>]+>", "1", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in writing & rule.methods
    }
    assert rules - {("POST", "/logout"), ("POST", "/1")} == set(WRITES)


def test_a_session_needs_its_csrf_token_to_write(client):
    sign_in(client)
    token = re.search(r'name="csrf-token" content="([^"]+)"', client.get("/panel").text)[1]
    assert client.post("/api/items", json={"title": "forged"}).status_code == 400
    assert client.post("/api/items", json={"title": "x"}, headers={"X-CSRF-Token": token[::-1]}).status_code == 400
    assert client.post("/api/items", json={"title": "mine"}, headers={"X-CSRF-Token": token}).status_code == 201


def test_generated_token_is_private_and_works(client, monkeypatch):
    monkeypatch.delenv("PANEL_API_TOKEN")
    assert client.post("/api/items", json={"title": "x"}, headers={"Authorization": "Bearer x"}).status_code == 401
    file = paths.DATA / "api_token.pl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    headers = {"Authorization": f"Bearer {file.read_text().strip()}"}
    assert client.post("/api/items", json={"title": "x"}, headers=headers).status_code == 201


def test_items_are_created_changed_and_deleted(client, script):
    made = script.post("/api/items", json={"title": " Grüße 🚀 ", "note": "n"})
    assert made.status_code == 201
    assert made.json["title"] == "Grüße 🚀"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.json["created_at"])
    path = f"/api/items/{made.json['id']}"
    changed = script.patch(path, json={"done": True}).json
    assert (changed["done"], changed["note"]) == (True, "n")
    assert client.get("/api/items").json == [changed]
    assert script.delete(path).status_code == 204
    assert script.delete(path).status_code == 404
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": ""},
        {"title": "   "},
        {"title": 7},
        {"title": "x" * 201},
        {"title": "nul\0"},
        {"title": "x", "done": "yes"},
        {"title": "x", "note": []},
        [],
        None,
    ],
)
def test_invalid_items_are_refused(script, body):
    answer = script.post("/api/items", json=body)
    assert answer.status_code == 400
    assert answer.json["message"]
    assert script.get("/api/items").json == []


def test_language_is_set_through_a_symlink_of_a_release(client, script, tmp_path):
    shared = tmp_path / "shared.json"
    shared.write_text('{"default": "en"}')
    paths.LANGUAGE.parent.mkdir(parents=True)
    paths.LANGUAGE.symlink_to(shared)
    assert script.put("/api/language", json={"default": "../../etc/passwd"}).status_code == 400
    assert script.put("/api/language", json={"default": "zh"}).status_code == 200
    assert paths.LANGUAGE.is_symlink()
    assert json.loads(shared.read_text()) == {"default": "zh"}
    assert '<html lang="zh">' in client.get("/").text
    shared.write_text("{torn")
    assert '<html lang="en">' in client.get("/").text


def test_languages_have_the_same_keys():
    words = [json.loads(file.read_text()) for file in (paths.RELEASE / "BTPanel/languages").glob("??.json")]
    assert len(words) > 1
    assert all(set(other) == set(words[0]) for other in words)


# Uploads


def upload(caller, name, content=b"content"):
    return caller.post("/api/upload", data={"file": (io.BytesIO(content), name)})


def test_upload_is_served_unchanged(client, script):
    content = bytes(range(256)) * 1000
    answer = upload(script, "../../etc/cron.d/evil.bin", content)
    assert answer.status_code == 201
    assert re.fullmatch(r"/static/upload/[0-9a-f]{24}\.bin", answer.json["url"])
    assert client.get(answer.json["url"]).data == content
    assert [file.name for file in paths.UPLOADS.iterdir()] == [answer.json["url"].rpartition("/")[2]]


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.py", "x", ".txt", "x.txt.php"])
def test_upload_of_executable_content_is_refused(script, name):
    assert upload(script, name).status_code == 400
    assert list(paths.UPLOADS.iterdir()) == []


def test_upload_too_large_is_refused(script):
    assert upload(script, "x.bin", b"x" * (16 * 1024 * 1024 + 1)).status_code == 413
    assert list(paths.UPLOADS.iterdir()) == []


@pytest.mark.parametrize("path", ["../../data/default.db", "..%2f..%2fdata%2fdefault.db", ".half.bin"])
def test_uploads_folder_serves_finished_uploads_only(client, path):
    (paths.UPLOADS / ".half.bin").write_bytes(b"unfinished")
    assert client.get(f"/static/upload/{path}").status_code == 404


# Trials


@pytest.mark.parametrize("query", ["seconds=-1", "seconds=nan", "seconds=1e9", "seconds=x", "chunk=1e12"])
def test_stream_limits_its_duration_and_size(client, query):
    assert client.get(f"/stream?{query}").status_code == 400


def test_stream_ends_with_its_last_line(client):
    lines = client.get("/stream?seconds=0.2&chunk=10").text.splitlines()
    assert [len(line) for line in lines] == [10, 10, 3]
    assert lines[-1] == "end"


@pytest.mark.parametrize(("requested", "status"), [(500, 500), (503, 503), (404, 404), (200, 400), (999, 400)])
def test_fail_answers_with_the_requested_status(client, requested, status):
    assert client.get(f"/api/fail?status={requested}").status_code == status


# Background


def wait_for(client, key, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.get(f"/api/background/{key}").json
        if job["state"] == "done":
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_background_job_writes_after_its_answer(client, script):
    answer = script.post("/api/background", json={"title": "later", "seconds": 0.2})
    assert answer.status_code == 202
    assert client.get("/api/items").json == []
    job = wait_for(client, answer.json["id"])
    assert client.get(f"/api/items/{job['item_id']}").json["title"] == "later"


@pytest.mark.parametrize("seconds", [-1, 61, "1", None])
def test_background_job_needs_a_valid_time(script, seconds):
    assert script.post("/api/background", json={"seconds": seconds}).status_code == 400


class FakeRedis:
    """The three commands that jobs use. As in Redis, ZREM returns 1 once for each member."""

    def __init__(self):
        self.members = {}

    def zadd(self, _key, members):
        self.members.update(members)

    def zrangebyscore(self, _key, lowest, highest):
        return [name for name, score in self.members.items() if lowest <= score <= highest]

    def zrem(self, _key, name):
        return int(self.members.pop(name, None) is not None)


def test_job_of_a_dead_worker_is_done_once_by_the_next(panel, app, client, script, monkeypatch):
    app.extensions["redis"] = FakeRedis()
    with monkeypatch.context() as dead:
        dead.setattr(panel.jobs, "_work", lambda *_: None)
        left = script.post("/api/background", json={"title": "left behind", "seconds": 0}).json["id"]
    assert client.get(f"/api/background/{left}").json["state"] == "queued"
    for _ in range(2):
        panel.jobs._work(app, 0, 0, True)
    assert wait_for(client, left)["item_id"]
    assert len(client.get("/api/items").json) == 1
    assert app.extensions["redis"].members == {}
