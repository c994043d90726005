# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a switch costs those who are using the panel, asked from another container while every kind of traffic runs.

A Debian 13 host with both colours up. First 100 switches by one rename; then, with the same load, the way that others
switch: another upstream and `nginx -s reload`. Then how long a rollback takes, on the host and with a playbook, and how
long a whole deploy; and what the live link costs beside a plain proxy_pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_host import DOMAIN, ROOT, docker, judge, play, remove, serves, start_host, write_inventory

sys.path.insert(0, str(ROOT / "tests"))

from kit.load import percentile

HOST, CLIENT = "bench-switch", "bench-client"
COLOURS = ("blue", "green")
SWITCHES = 100
REQUESTS = 100_000
RELOADS = 40
PACE = 0.8  # seconds from one switch to the next, where the switch itself does not take longer
LONGEST = 280.0  # seconds that one load may run
# As many as two cores that also run nginx, both colours and this load can carry without a queue of seconds.
TRAFFIC = {"get": 12, "fresh": 2, "post": 2, "upload": 2, "stream": 6, "websocket": 20}
THROUGHPUT_PAIRS, THROUGHPUT_SECONDS, THROUGHPUT_CLIENTS = 15, 1.5, 16
ROLLBACKS = 5
RELOAD_PORT, LINK_PORT, PLAIN_PORT = 8081, 8082, 8083
LIVE = "/opt/aapanel/live"
PANELCTL = "/etc/aapanel/panelctl.json"
SITE, DEPLOY, ROLLBACK = (ROOT / f"playbooks/{name}.yml" for name in ("site", "deploy", "rollback"))

GOAL_SWITCH_MS = 10.0
GOAL_ROLLBACK = 1.0  # seconds
GOAL_ROLLBACK_PLAY = 10.0
GOAL_DEPLOY = 30.0
GOAL_THROUGHPUT = 5.0  # percent below a plain proxy_pass

# Runs on the host: give the second nginx the configuration for a colour, reload it, and wait until that colour answers.
RELOAD = """
import http.client, json, os, shutil, subprocess, sys, time
conf, colour, port, domain = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
shutil.copyfile(f"{conf}.{colour}", conf)
begin = time.monotonic()
subprocess.run(["nginx", "-q", "-c", conf, "-s", "reload"], check=True)
slot = None
while slot != colour:
    if time.monotonic() - begin > 10:
        sys.exit(f"{conf}: 10 s after the reload it is still {slot} that answers, not {colour}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health/live", headers={"Host": domain})
        slot = connection.getresponse().headers["X-Slot"]
    except (OSError, http.client.HTTPException):
        continue
    finally:
        connection.close()
seconds = time.monotonic() - begin
master = open(f"/run/{os.path.basename(conf).removesuffix('.conf')}.pid").read().strip()
workers = subprocess.run(["pgrep", "--count", "--parent", master], capture_output=True, text=True).stdout
print(json.dumps({"seconds": seconds, "workers": int(workers)}))
"""


class Traffic:
    """The load client in the other container."""

    def __init__(self, url: str, token: str, *arguments: str, **clients: int) -> None:
        """Start it, with so many clients of each kind; it goes on until `finish`."""
        numbers = [word for kind, number in clients.items() for word in (f"--{kind}", str(number))]
        # The token by the name of its variable: what stands in a command everybody can read.
        command = ["docker", "exec", "--interactive", "--env", "PANEL_API_TOKEN", CLIENT, "python3", "/load.py"]
        self._process = subprocess.Popen(
            [*command, "--url", url, "--host-header", DOMAIN, *numbers, *arguments],
            env={**os.environ, "PANEL_API_TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._websockets = clients.get("websocket", 0)
        self._began = time.monotonic()
        self._last: dict[str, Any] = {"requests": 0, "failed": 0, "websockets": 0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last = json.loads(line)

    @property
    def requests(self) -> int:
        """How many requests were made, as of the last second."""
        return int(self._last["requests"])

    @property
    def late(self) -> bool:
        """Whether it has run for as long as it may."""
        return time.monotonic() - self._began > LONGEST

    def wait_until_all_run(self) -> None:
        """Wait until all WebSockets are open and requests are answered; ends the benchmark after 20 s."""
        while not (self.requests and self._last["websockets"] == self._websockets):
            if self._process.poll() is not None or time.monotonic() - self._began > 20:
                sys.exit(f"the load did not come up within 20 s: {self._last}")
            time.sleep(0.1)

    def finish(self) -> dict[str, Any]:
        """Let it finish what is in flight; returns its summary."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(30)
        self._process.wait(5)
        if "kinds" not in self._last:
            sys.exit(f"the load ended without a summary, status {self._process.returncode}: {self._last}")
        return self._last


@dataclass
class Switching:
    """A load and the switches during it."""

    load: dict[str, Any]
    seconds: list[float]
    pace: float  # seconds from one switch to the next

    def milliseconds(self, percent: float) -> float:
        """A percentile of the switches' durations."""
        return percentile(sorted(self.seconds), percent) * 1000

    @property
    def unhurt(self) -> bool:
        """Whether not one request failed, and no WebSocket was cut or refused."""
        websockets = self.load["websockets"]
        hurt = (websockets[name] for name in ("cut", "refused", "mismatched"))
        return not self.load["failed"] and not self.load["closed_idle"] and not any(hurt)


def on_host(*command: str) -> str:
    return docker("exec", HOST, *command)


def seconds_on_host(command: str) -> float:
    """Run a shell command on the host; returns its own seconds, without those of getting there."""
    times = on_host("bash", "-c", f'begin=$EPOCHREALTIME; {command} >/dev/null || exit; echo "$begin $EPOCHREALTIME"')
    begin, end = map(float, times.split())
    return end - begin


def live_colour() -> str:
    return Path(on_host("readlink", LIVE)).name


def start_client() -> None:
    docker("run", "--detach", "--name", CLIENT, "--hostname", CLIENT, "aapanel-lab/bookworm", "sleep", "infinity")
    docker("cp", str(ROOT / "tests/kit/load.py"), f"{CLIENT}:/load.py")


def deploy(source: Path, inventory: Path) -> float:
    """Deploy another release of the example panel, with the same requirements; returns the playbook's seconds."""
    before = live_colour()
    (source / "VERSION").write_text(f"1.0.{int(time.time())}\n")
    seconds = play(DEPLOY, inventory).seconds
    if live_colour() == before:
        sys.exit(f"the deploy ended well, but {before} is live as before")
    return seconds


def start_edge(scratch: Path, name: str, port: int, sockets: dict[str, str]) -> str:
    """Start one more nginx on the host, with the product's configuration but for its port and its way to the app.

    `sockets` are those ways, by a name each; it begins with the first one. Returns where its configuration is.
    """
    text = on_host("cat", "/etc/nginx/nginx.conf")
    place = f"/etc/nginx/{name}.conf"
    changes = {
        "listen 80": f"listen {port}",
        "listen [::]:80": f"listen [::]:{port}",
        "/run/nginx.pid": f"/run/{name}.pid",
        "/var/log/nginx/": f"/var/log/nginx/{name}-",
    }
    for old, new in changes.items():
        if old not in text:
            sys.exit(f"nginx.conf of the product has no {old!r} any more: teach {Path(__file__).name} what it has")
        text = text.replace(old, new)
    for key, socket in sockets.items():
        local = scratch / f"{name}.{key}"
        local.write_text(text.replace(f"{LIVE}/sock", socket))
        docker("cp", str(local), f"{HOST}:{place}.{key}")
    on_host("cp", f"{place}.{next(iter(sockets))}", place)
    # A unit, as the product's own: processes elsewhere would get another share of a busy processor.
    on_host("systemd-run", "--quiet", f"--unit={name}", "--property=Type=forking", "nginx", "-q", "-c", place)
    return place


def switch_under_load(
    url: str, token: str, switch: Callable[[], float], *, pace: float, times: int, requests: int = 0
) -> Switching:
    """Switch every `pace` seconds while the load runs, until there were as many switches, and requests, as wanted."""
    traffic = Traffic(url, token, **TRAFFIC)
    traffic.wait_until_all_run()
    seconds: list[float] = []
    began = time.monotonic()
    while (len(seconds) < times or traffic.requests < requests) and not traffic.late:
        seconds.append(switch())
        time.sleep(max(0.0, began + len(seconds) * pace - time.monotonic()))
    taken = time.monotonic() - began
    return Switching(traffic.finish(), seconds, taken / len(seconds))


@contextlib.contextmanager
def looking_briefly() -> Iterator[None]:
    """Have panelctl look at a slot once before a switch, and not for seconds after it: there are 100 to come."""
    before = on_host("cat", PANELCTL)
    write = f"import sys; open({PANELCTL!r}, 'w').write(sys.argv[1])"
    on_host("python3", "-c", write, json.dumps({**json.loads(before), "healthy_passes": 1, "verify_seconds": 0}))
    try:
        yield
    finally:
        on_host("python3", "-c", write, before)


def switch_by_link() -> float:
    """Switch with panelctl; returns the seconds of the rename."""
    return float(json.loads(on_host("panelctl", "switch", "inactive", "--json"))["durations"]["switched"])


class Reloading:
    """A second nginx that is switched by a changed configuration and a reload."""

    def __init__(self, scratch: Path) -> None:
        """Start it."""
        sockets = {colour: f"/opt/aapanel/slots/{colour}/sock" for colour in COLOURS}
        self._configuration = start_edge(scratch, "bench-reload", RELOAD_PORT, sockets)
        self._colour = COLOURS[0]
        self.workers = 0

    def switch(self) -> float:
        """Point it at the other colour; returns the seconds until that one answers."""
        self._colour = COLOURS[1 - COLOURS.index(self._colour)]
        arguments = (self._configuration, self._colour, str(RELOAD_PORT), DOMAIN)
        told = json.loads(on_host("python3", "-c", RELOAD, *arguments))
        self.workers = max(self.workers, told["workers"])
        return float(told["seconds"])


def measure_throughput(scratch: Path, address: str, token: str) -> tuple[float, float, list[float]]:
    """Requests per second through the live link, through a plain proxy_pass, and by how many percent it is slower.

    Medians; the percentages are the quartiles of the pairs that ran one right after the other, because machines drift.
    On one that is busy with other work they lie far apart, and then say little.
    """
    start_edge(scratch, "bench-link", LINK_PORT, {"link": f"{LIVE}/sock"})
    start_edge(scratch, "bench-plain", PLAIN_PORT, {"plain": f"/run/aapanel/{live_colour()}.sock"})
    pairs: list[dict[int, float]] = []
    for number in range(THROUGHPUT_PAIRS):
        pair: dict[int, float] = {}
        for port in (LINK_PORT, PLAIN_PORT) if number % 2 else (PLAIN_PORT, LINK_PORT):
            # The cheapest answer there is: the dearer the app, the less of what nginx does could be seen.
            traffic = Traffic(
                f"http://{address}:{port}",
                token,
                f"--duration={THROUGHPUT_SECONDS}",
                "--path=/health/live",
                get=THROUGHPUT_CLIENTS,
            )
            pair[port] = traffic.finish()["per_second"]
        pairs.append(pair)
    link, plain = (statistics.median(pair[port] for pair in pairs) for port in (LINK_PORT, PLAIN_PORT))
    return link, plain, statistics.quantiles(100 * (1 - pair[LINK_PORT] / pair[PLAIN_PORT]) for pair in pairs)


def measure_rollback() -> float:
    """The slowest of some rollbacks with the product's own command on the host, in seconds."""
    seconds = []
    for _ in range(ROLLBACKS):
        seconds.append(seconds_on_host("panelctl rollback --json"))
        # The release that was left counts as bad now.
        on_host("panelctl", "switch", "inactive", "--force", "--json")
    return max(seconds)


def measure_rollback_play(inventory: Path) -> float:
    before = live_colour()
    seconds = play(ROLLBACK, inventory).seconds
    if live_colour() == before:
        sys.exit(f"rollback.yml ended well, but {before} is live as before")
    return seconds


def say(what: str, *values: object) -> None:
    print(f"{what:34}" + "".join(f"{value!s:>22}" for value in values), flush=True)


def report(link: Switching, reload: Switching) -> None:
    """Print a line for each figure, with both ways to switch side by side."""
    both = (link, reload)
    say("", "symlink", "nginx -s reload")
    say("switches, seconds apart", *(f"{len(each.seconds)}, {each.pace:.1f}" for each in both))
    say("requests", *(each.load["requests"] for each in both))
    say("failed", *(each.load["failed"] for each in both))
    say("closed while idle, unannounced", *(each.load["closed_idle"] for each in both))
    say("WebSockets opened", *(each.load["websockets"]["opened"] for each in both))
    say("WebSockets cut", *(each.load["websockets"]["cut"] for each in both))
    say("WebSocket messages", *(each.load["websockets"]["messages"] for each in both))
    say("switch p50 / p99, ms", *(f"{each.milliseconds(50):.3f} / {each.milliseconds(99):.3f}" for each in both))
    say("requests per second", *(each.load["per_second"] for each in both))
    for kind in link.load["kinds"]:
        tallies = (each.load["kinds"][kind] for each in both)
        say(f"  {kind}: failed, p50 / p99, ms", *(f"{t['failed']}, {t['p50_ms']} / {t['p99_ms']}" for t in tallies))
    for each in both:
        for why in [*each.load["websockets"]["why"], *(why for t in each.load["kinds"].values() for why in t["why"])]:
            print(f"  {'symlink' if each is link else 'reload'}, after {why}")


def measure(scratch: Path) -> int:
    """Measure everything, print it, and judge it; returns the exit status."""
    token, source = secrets.token_urlsafe(48), scratch / "panel"
    shutil.copytree(ROOT / "examples/panel", source)
    address = start_host(HOST, scratch)
    start_client()
    inventory = write_inventory(
        HOST,
        address,
        scratch,
        panel_environment="production",
        panel_source=str(source),
        panel_database_engine="sqlite",
        panel_redis_enabled=False,
        panel_settings={"PANEL_API_TOKEN": token},
        # A renewed worker closes its WebSockets, and at this rate one is renewed each second: not the switch's doing.
        app_max_requests=0,
        # Both colours shall stay up all the time.
        panel_safety_seconds=3600,
    )
    play(SITE, inventory)
    if not serves(address):
        sys.exit(f"site.yml ended, but http://{address}/health/ready is not ready")
    goals: dict[str, bool] = {}

    deployed = deploy(source, inventory)
    say("deploy.yml, same requirements, s", f"{deployed:.1f}")
    goals[f"warm deploy.yml in under {GOAL_DEPLOY:g} s"] = deployed < GOAL_DEPLOY

    reloading = Reloading(scratch)
    with looking_briefly():
        link = switch_under_load(
            f"http://{address}", token, switch_by_link, pace=PACE, times=SWITCHES, requests=REQUESTS
        )
    reload = switch_under_load(
        f"http://{address}:{RELOAD_PORT}", token, reloading.switch, pace=link.pace, times=RELOADS
    )
    report(link, reload)
    say("workers of that nginx, at most", "", reloading.workers)
    enough = link.load["requests"] >= REQUESTS and len(link.seconds) >= SWITCHES
    goals[f"0 failed of at least {REQUESTS} requests and 0 WebSockets cut by {SWITCHES} switches"] = (
        link.unhurt and enough
    )
    goals[f"switch p99 under {GOAL_SWITCH_MS:g} ms"] = link.milliseconds(99) < GOAL_SWITCH_MS

    rollback = measure_rollback()
    say("panelctl rollback, slowest, s", f"{rollback:.2f}")
    goals[f"panelctl rollback in under {GOAL_ROLLBACK:g} s"] = rollback < GOAL_ROLLBACK
    rollback = measure_rollback_play(inventory)
    say("rollback.yml, s", f"{rollback:.1f}")
    goals[f"rollback.yml in under {GOAL_ROLLBACK_PLAY:g} s"] = rollback < GOAL_ROLLBACK_PLAY

    through_link, plain, (lower, percent, upper) = measure_throughput(scratch, address, token)
    say("requests per second, live link", f"{through_link:.0f}")
    say("requests per second, plain", f"{plain:.0f}")
    say("live link slower by, %", f"{percent:+.1f}", f"({lower:+.1f} to {upper:+.1f})")
    goals[f"through the live link at most {GOAL_THROUGHPUT:g} % slower than plain"] = percent < GOAL_THROUGHPUT
    return judge(goals)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return measure(Path(scratch))
        finally:
            remove(HOST, CLIENT)


if __name__ == "__main__":
    sys.exit(main())
