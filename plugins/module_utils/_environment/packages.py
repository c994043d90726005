# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the state of Debian packages without starting apt."""

from __future__ import annotations

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import Host

_DPKG_STATUS = "/var/lib/dpkg/status"
_APT_LISTS = "/var/lib/apt/lists"
_APT_LISTS_VALID_SECONDS = 86400
_INSTALLED = "ok installed"


def installed_packages(host: Host) -> list[str]:
    """Return the sorted names of the Debian packages that are fully installed, of any architecture.

    Source: dpkg-query(1), "status abbreviations"; deb-control(5). Reading dpkg's status file takes milliseconds;
    opening apt's cache takes most of a second.
    """
    names = set()
    name = ""
    for line in host.lines(_DPKG_STATUS):
        key, _colon, value = line.partition(": ")
        if key == "Package":
            name = value
        # "install ok installed" or "hold ok installed": selection, error flag, state.
        elif key == "Status" and value.endswith(_INSTALLED):
            names.add(name)
    return sorted(names)


def package_lists(host: Host) -> tuple[bool, str, str]:
    """Return whether apt has package lists that are at most a day old: verdict, file, what was found."""
    # Uncompressed or compressed: `<repository>_Packages`, `…_Packages.lz4`.
    if not any("_Packages" in name for name in host.names(_APT_LISTS)):
        return False, _APT_LISTS, "empty"
    # Ubuntu and unattended-upgrades write the stamp; a refresh without new packages changes only the stamp.
    ages = (host.age(path) for path in ("/var/lib/apt/periodic/update-success-stamp", _APT_LISTS))
    fresh = any(age is not None and age < _APT_LISTS_VALID_SECONDS for age in ages)
    return fresh, _APT_LISTS, "fresh" if fresh else "older than a day"
