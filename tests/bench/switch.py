# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the effect of a switch on clients, from another container, under all kinds of traffic.

Uses a Debian 13 host with both slots started. First makes 100 switches by renaming the live link; then, with the same
load, switches in the usual way: a new upstream and `nginx -s reload`. Then measures the durations of a rollback, on the
host and by a playbook, and of a deploy; and the throughput through the live link compared with a plain proxy_pass.
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

from lab_host import DOMAIN, ROOT, docker, play, print_goals, remove, serves, start_host, write_inventory

sys.path.insert(0, str(ROOT / "tests"))

from kit.load import percentile

HOST, CLIENT = "bench-switch", "bench-client"
COLOURS = ("blue", "green")
SWITCHES = 100
REQUESTS = 100_000
RELOADS = 40
PACE = 0.8  # seconds from one switch to the next, unless the switch takes longer
LONGEST = 280.0  # maximum seconds of a load
# The largest load without queues of seconds on two cores that also run nginx, both slots and the load client.
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

# Runs on the host: activates the second nginx's configuration for a slot, reloads it, and waits until the slot answers.
RELOAD = """
import http.client, json, os, shutil, subprocess, sys, time
conf, colour, port, domain = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
shutil.copyfile(f"{conf}.{colour}", conf)
begin = time.monotonic()
subprocess.run(["nginx", "-q", "-c", conf, "-s", "reload"], check=True)
slot = None
while slot != colour:
    if time.monotonic() - begin > 10:
        sys.exit(f"{conf}: 10 s after the reload, {slot} still answers instead of {colour}: see the log of nginx")
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
        """Start the load with the given number of clients of each kind; it runs until `finish`."""
        numbers = [word for kind, number in clients.items() for word in (f"--{kind}", str(number))]
        # Pass the token in the environment: all users can read the arguments of a command.
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
        """Return the number of requests up to the last second."""
        return int(self._last["requests"])

    @property
    def late(self) -> bool:
        """Return whether the load has run for the maximum time."""
        return time.monotonic() - self._began > LONGEST

    def wait_until_all_run(self) -> None:
        """Wait until all WebSockets are open and requests are answered; exits after 20 s."""
        while not (self.requests and self._last["websockets"] == self._websockets):
            if self._process.poll() is not None or time.monotonic() - self._began > 20:
                sys.exit(f"the load did not start within 20 s: {self._last}")
            time.sleep(0.1)

    def finish(self) -> dict[str, Any]:
        """Stop the load after the requests in flight; returns its summary."""
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
        """Return a percentile of the switches' durations."""
        return percentile(sorted(self.seconds), percent) * 1000

    @property
    def without_failures(self) -> bool:
        """Return whether no request failed, and no WebSocket was cut or refused."""
        websockets = self.load["websockets"]
        failures = (websockets[name] for name in ("cut", "refused", "mismatched"))
        return not self.load["failed"] and not self.load["closed_idle"] and not any(failures)


def on_host(*command: str) -> str:
    return docker("exec", HOST, *command)


def seconds_on_host(command: str) -> float:
    """Run a shell command on the host; returns its duration in seconds, without that of `docker exec`."""
    times = on_host("bash", "-c", f'begin=$EPOCHREALTIME; {command} >/dev/null || exit; echo "$begin $EPOCHREALTIME"')
    begin, end = map(float, times.split())
    return end - begin


def live_colour() -> str:
    return Path(on_host("readlink", LIVE)).name


def start_client() -> None:
    docker("run", "--detach", "--name", CLIENT, "--hostname", CLIENT, "aapanel-lab/bookworm", "sleep", "infinity")
    docker("cp", str(ROOT / "tests/kit/load.py"), f"{CLIENT}:/load.py")


def deploy(source: Path, inventory: Path) -> float:
    """Deploy a new release of the example panel, with the same requirements; returns the playbook's seconds."""
    before = live_colour()
    (source / "VERSION").write_text(f"1.0.{int(time.time())}\n")
    seconds = play(DEPLOY, inventory).seconds
    if live_colour() == before:
        sys.exit(f"the deploy succeeded, but {before} is still live: see panelctl history on {HOST}")
    return seconds


def start_edge(scratch: Path, name: str, port: int, sockets: dict[str, str]) -> str:
    """Start another nginx on the host, with the product's configuration except for the port and the app's socket.

    `sockets` are the sockets by name; nginx starts with the first one. Returns the path of its configuration.
    """
    text = on_host("cat", "/etc/nginx/nginx.conf")
    path = f"/etc/nginx/{name}.conf"
    changes = {
        "listen 80": f"listen {port}",
        "listen [::]:80": f"listen [::]:{port}",
        "/run/nginx.pid": f"/run/{name}.pid",
        "/var/log/nginx/": f"/var/log/nginx/{name}-",
    }
    for old, new in changes.items():
        if old not in text:
            sys.exit(f"the product's nginx.conf has no {old!r}: update the changes in {Path(__file__).name}")
        text = text.replace(old, new)
    for key, socket in sockets.items():
        local = scratch / f"{name}.{key}"
        local.write_text(text.replace(f"{LIVE}/sock", socket))
        docker("cp", str(local), f"{HOST}:{path}.{key}")
    on_host("cp", f"{path}.{next(iter(sockets))}", path)
    # Run it as a unit, like the product's nginx: other processes would get another share of a busy processor.
    on_host("systemd-run", "--quiet", f"--unit={name}", "--property=Type=forking", "nginx", "-q", "-c", path)
    return path


def switch_under_load(
    url: str, token: str, switch: Callable[[], float], *, pace: float, times: int, requests: int = 0
) -> Switching:
    """Switch every `pace` seconds under load, until the given numbers of switches and requests are reached."""
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
def short_health_checks() -> Iterator[None]:
    """Make panelctl check a slot once before a switch, and not after it, to save time in 100 switches."""
    before = on_host("cat", PANELCTL)
    write = f"import sys; open({PANELCTL!r}, 'w').write(sys.argv[1])"
    on_host("python3", "-c", write, json.dumps({**json.loads(before), "healthy_passes": 1, "verify_seconds": 0}))
    try:
        yield
    finally:
        on_host("python3", "-c", write, before)


def switch_by_link() -> float:
    """Switch with panelctl; returns the duration of the rename in seconds."""
    return float(json.loads(on_host("panelctl", "switch", "inactive", "--json"))["durations"]["switched"])


class Reloading:
    """A second nginx, which is switched by a configuration change and a reload."""

    def __init__(self, scratch: Path) -> None:
        """Start nginx."""
        sockets = {colour: f"/opt/aapanel/slots/{colour}/sock" for colour in COLOURS}
        self._configuration = start_edge(scratch, "bench-reload", RELOAD_PORT, sockets)
        self._colour = COLOURS[0]
        self.workers = 0

    def switch(self) -> float:
        """Switch to the other slot; returns the seconds until that slot answers."""
        self._colour = COLOURS[1 - COLOURS.index(self._colour)]
        arguments = (self._configuration, self._colour, str(RELOAD_PORT), DOMAIN)
        result = json.loads(on_host("python3", "-c", RELOAD, *arguments))
        self.workers = max(self.workers, result["workers"])
        return float(result["seconds"])


def measure_throughput(scratch: Path, address: str, token: str) -> tuple[float, float, list[float]]:
    """Return requests per second through the live link, through a plain proxy_pass, and the difference in percent.

    The first two are medians. The percentages are quartiles over pairs of consecutive measurements, because the speed
    of a machine drifts. On a busy machine the quartiles are far apart, and the result is not meaningful.
    """
    start_edge(scratch, "bench-link", LINK_PORT, {"link": f"{LIVE}/sock"})
    start_edge(scratch, "bench-plain", PLAIN_PORT, {"plain": f"/run/aapanel/{live_colour()}.sock"})
    pairs: list[dict[int, float]] = []
    for number in range(THROUGHPUT_PAIRS):
        pair: dict[int, float] = {}
        for port in (LINK_PORT, PLAIN_PORT) if number % 2 else (PLAIN_PORT, LINK_PORT):
            # The cheapest response: with a slower one, the share of nginx in the time would be too small.
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
    """Return the duration of the slowest of several rollbacks with panelctl, in seconds."""
    seconds = []
    for _ in range(ROLLBACKS):
        seconds.append(seconds_on_host("panelctl rollback --json"))
        # The rollback marked the other release as bad, so --force is needed.
        on_host("panelctl", "switch", "inactive", "--force", "--json")
    return max(seconds)


def measure_rollback_play(inventory: Path) -> float:
    before = live_colour()
    seconds = play(ROLLBACK, inventory).seconds
    if live_colour() == before:
        sys.exit(f"rollback.yml succeeded, but {before} is still live: see panelctl history on {HOST}")
    return seconds


def print_figure(what: str, *values: object) -> None:
    print(f"{what:34}" + "".join(f"{value!s:>22}" for value in values), flush=True)


def report(link: Switching, reload: Switching) -> None:
    """Print a line for each figure, with both ways to switch in columns."""
    both = (link, reload)
    print_figure("", "symlink", "nginx -s reload")
    print_figure("switches, seconds apart", *(f"{len(each.seconds)}, {each.pace:.1f}" for each in both))
    print_figure("requests", *(each.load["requests"] for each in both))
    print_figure("failed", *(each.load["failed"] for each in both))
    print_figure("closed while idle, unannounced", *(each.load["closed_idle"] for each in both))
    print_figure("WebSockets opened", *(each.load["websockets"]["opened"] for each in both))
    print_figure("WebSockets cut", *(each.load["websockets"]["cut"] for each in both))
    print_figure("WebSocket messages", *(each.load["websockets"]["messages"] for each in both))
    print_figure(
        "switch p50 / p99, ms", *(f"{each.milliseconds(50):.3f} / {each.milliseconds(99):.3f}" for each in both)
    )
    print_figure("requests per second", *(each.load["per_second"] for each in both))
    for kind in link.load["kinds"]:
        tallies = (each.load["kinds"][kind] for each in both)
        print_figure(
            f"  {kind}: failed, p50 / p99, ms", *(f"{t['failed']}, {t['p50_ms']} / {t['p99_ms']}" for t in tallies)
        )
    for each in both:
        for why in [*each.load["websockets"]["why"], *(why for t in each.load["kinds"].values() for why in t["why"])]:
            print(f"  {'symlink' if each is link else 'reload'}, after {why}")


def measure(scratch: Path) -> int:
    """Measure and print everything, and check the goals; returns the exit status."""
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
        # A restarted worker closes its WebSockets. At this load, a worker would restart each second, without a switch.
        app_max_requests=0,
        # Both slots must stay started.
        panel_safety_seconds=3600,
    )
    play(SITE, inventory)
    if not serves(address):
        sys.exit(f"site.yml succeeded, but http://{address}/health/ready is not ready: see the journal of {HOST}")
    goals: dict[str, bool] = {}

    deployed = deploy(source, inventory)
    print_figure("deploy.yml, same requirements, s", f"{deployed:.1f}")
    goals[f"warm deploy.yml in under {GOAL_DEPLOY:g} s"] = deployed < GOAL_DEPLOY

    reloading = Reloading(scratch)
    with short_health_checks():
        link = switch_under_load(
            f"http://{address}", token, switch_by_link, pace=PACE, times=SWITCHES, requests=REQUESTS
        )
    reload = switch_under_load(
        f"http://{address}:{RELOAD_PORT}", token, reloading.switch, pace=link.pace, times=RELOADS
    )
    report(link, reload)
    print_figure("workers of that nginx, at most", "", reloading.workers)
    enough = link.load["requests"] >= REQUESTS and len(link.seconds) >= SWITCHES
    goals[f"0 failed of at least {REQUESTS} requests and 0 WebSockets cut by {SWITCHES} switches"] = (
        link.without_failures and enough
    )
    goals[f"switch p99 under {GOAL_SWITCH_MS:g} ms"] = link.milliseconds(99) < GOAL_SWITCH_MS

    rollback = measure_rollback()
    print_figure("panelctl rollback, slowest, s", f"{rollback:.2f}")
    goals[f"panelctl rollback in under {GOAL_ROLLBACK:g} s"] = rollback < GOAL_ROLLBACK
    rollback = measure_rollback_play(inventory)
    print_figure("rollback.yml, s", f"{rollback:.1f}")
    goals[f"rollback.yml in under {GOAL_ROLLBACK_PLAY:g} s"] = rollback < GOAL_ROLLBACK_PLAY

    through_link, plain, (lower, percent, upper) = measure_throughput(scratch, address, token)
    print_figure("requests per second, live link", f"{through_link:.0f}")
    print_figure("requests per second, plain", f"{plain:.0f}")
    print_figure("live link slower by, %", f"{percent:+.1f}", f"({lower:+.1f} to {upper:+.1f})")
    goals[f"through the live link at most {GOAL_THROUGHPUT:g} % slower than plain"] = percent < GOAL_THROUGHPUT
    return print_goals(goals)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return measure(Path(scratch))
        finally:
            remove(HOST, CLIENT)


if __name__ == "__main__":
    sys.exit(main())
