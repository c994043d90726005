# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record a deploy and a rollback on a Debian 13 host as an animated SVG for the README.

Each line of the recording appears when it was printed, sped up so that the whole takes `PLAYBACK` seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab_host import ROOT, play, remove, start_host, write_inventory
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HOST = "panel1"
IMAGE = ROOT / "docs/images/deploy.svg"
COLUMNS = 145
PLAYBACK = 12.0  # seconds
NEW_VERSION = "1.1.0"

# rich's own format, without the font that it loads from another host.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")
ANIMATION = """<style>
text[style] { animation: appear 0.01s both }
@keyframes appear { from { visibility: hidden } }
@media (prefers-reduced-motion) { text[style] { animation: none } }
</style></svg>"""


@dataclass(frozen=True)
class Line:
    """A line of the terminal, with escape sequences for colours; `seconds` since the start of the recording."""

    text: str
    seconds: float


class Recorder:
    """Runs commands in a folder and records what a terminal would show."""

    def __init__(self, folder: Path) -> None:
        """Start the clock."""
        self.lines: list[Line] = []
        self._folder = folder
        self._began = time.monotonic()

    def run(self, shown: str, *command: str) -> None:
        """Run a command and record its output, below a prompt with the command as `shown`."""
        self._add(f"\x1b[1;32m$\x1b[0m \x1b[1m{shown}\x1b[0m")
        env = {
            **os.environ,
            "ANSIBLE_FORCE_COLOR": "1",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_STDOUT_CALLBACK": "community.general.unixy",
            # Changes only.
            "ANSIBLE_DISPLAY_OK_HOSTS": "false",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
            "COLUMNS": str(COLUMNS),
            "PYTHONUNBUFFERED": "1",
        }
        with subprocess.Popen(
            command, cwd=self._folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                # A file of the role, by a temporary path.
                if "included: " not in line:
                    self._add(line.rstrip("\n").replace(socket.gethostname(), "controller"))
        if process.returncode:
            sys.exit("\n".join(line.text for line in self.lines))
        self._add("")

    def _add(self, text: str) -> None:
        self.lines.append(Line(text, time.monotonic() - self._began))


def only_changes(lines: list[Line]) -> list[Line]:
    """Leave out the names of tasks that changed nothing, which have no line of a host below them."""
    plain = [Text.from_ansi(line.text).plain for line in lines]
    return [
        line
        for line, text, following in zip(lines, plain, [*plain[1:], ""], strict=True)
        if not text.endswith("...") or following.startswith("  ")
    ]


def render(lines: list[Line]) -> str:
    """Render recorded lines as an SVG whose lines appear one after another."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        seconds: list[float] = []
        for line in lines:
            text = Text.from_ansi(line.text)
            seconds += [line.seconds] * max(len(text.wrap(console, COLUMNS)), 1)
            console.print(text)
        svg = console.export_svg(title="aapanel.pipeline", theme=MONOKAI, code_format=FORMAT, unique_id="deploy")
    scale = PLAYBACK / (seconds[-1] - seconds[0])

    def delay(match: re.Match[str]) -> str:
        after = (seconds[int(match["row"])] - seconds[0]) * scale
        return f'<text style="animation-delay: {after:.2f}s"{match["rest"]}'

    svg = re.sub(r"<text(?P<rest>[^>]*#deploy-line-(?P<row>\d+)\))", delay, svg)
    return svg.replace("</svg>", ANIMATION)


def record(scratch: Path) -> None:
    """Install the panel on a new host, deploy a changed source, roll back, and write the image."""
    source, folder = scratch / "panel", scratch / "checkout"
    shutil.copytree(ROOT / "examples/panel", source)
    (folder / "inventories").mkdir(parents=True)
    for name in ("playbooks", "ansible.cfg"):
        (folder / name).symlink_to(ROOT / name)
    address = start_host(HOST, scratch)
    inventory = write_inventory(HOST, address, scratch, panel_environment="production", panel_source=str(source))
    (folder / "inventories/prod").symlink_to(inventory)
    play(ROOT / "playbooks/site.yml", inventory)
    (source / "VERSION").write_text(NEW_VERSION + "\n")

    ssh = [
        "ssh",
        "-q",
        "-i",
        str(scratch / "key"),
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]
    recorder = Recorder(folder)
    deploy = "ansible-playbook playbooks/deploy.yml -i inventories/prod"
    recorder.run(deploy, *deploy.split())
    for command in ("panelctl status", "panelctl rollback", "panelctl history"):
        recorder.run(f"ssh root@{HOST} {command}", *ssh, f"root@{address}", command)
    IMAGE.write_text(render(only_changes(recorder.lines)), encoding="utf-8")
    print(f"{IMAGE.relative_to(ROOT)}: {len(recorder.lines)} lines, {recorder.lines[-1].seconds:.1f} s")


def main() -> int:
    """Record, and remove the host."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            record(Path(scratch))
        finally:
            remove(HOST)
    return 0


if __name__ == "__main__":
    sys.exit(main())
