# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host

_DPKG_STATUS = "/var/lib/dpkg/status"
_APT_LISTS = "/var/lib/apt/lists"
_APT_LISTS_VALID_SECONDS = 86400
_INSTALLED = "ok installed"


def installed_packages(host: Host) -> list[str]:
    """The sorted names of the Debian packages that are fully installed on *host*, whatever their architecture.

    Source: dpkg-query(1), "status abbreviations"; deb-control(5). Asking dpkg's own file takes milliseconds where
    apt's cache takes most of a second to open.
    """
    names = set()
    name = ""
    for line in host.lines(_DPKG_STATUS):
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        # "install ok installed" or "hold ok installed": what is wanted, whether it is broken, what it is.
        elif key == "Status" and value.endswith(_INSTALLED):
            names.add(name)
    return sorted(names)


def package_lists(host: Host) -> tuple[bool, str, str]:
    """Whether apt knows which packages there are, and since a day at most: verdict, file, what was found."""
    # Compressed or not: `<repository>_Packages`, `…_Packages.lz4`.
    if not any("_Packages" in name for name in host.names(_APT_LISTS)):
        return False, _APT_LISTS, "empty"
    # The stamp is of Ubuntu's and of unattended-upgrades' making; a refresh that brings nothing new moves only it.
    ages = (host.age(path) for path in ("/var/lib/apt/periodic/update-success-stamp", _APT_LISTS))
    fresh = any(age is not None and age < _APT_LISTS_VALID_SECONDS for age in ages)
    return fresh, _APT_LISTS, "fresh" if fresh else "older than a day"
