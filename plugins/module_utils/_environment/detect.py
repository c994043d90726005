# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detect the kind, the provider and the capabilities of a host."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.features import decide
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.host import DetectionError, Host
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.packages import (
    installed_packages,
    package_lists,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._environment.resources import (
    usable_cpus,
    usable_memory_mb,
)

KINDS = ("replit", "ci", "container", "vps", "local")
CAPABILITIES = (
    "root",
    "systemd",
    "cron",
    "apt",
    "package_lists",
    "netfilter",
    "docker",
    "persistent_home",
    "user_namespaces",
)
KIND_VARIABLE = "AAPANEL_ENVIRONMENT_KIND"

_DMI = "/sys/class/dmi/id/"
_CAP_NET_ADMIN = 12  # capabilities(7)

# Debian's cron; cronie, dcron and busybox; fcron.
_CRON_DAEMONS = ("cron", "crond", "fcron")

# Provider, file below /sys/class/dmi/id, pattern. Only world-readable files: the serial and the UUID need root.
# Sources: cloud-init's ds-identify and its Akamai data source, systemd's virt.c and 40-imds.hwdb, and Amazon's
# "Detect whether a host is an EC2 instance". Google's row uses the product name: a Chromebook has the same vendor.
_PROVIDERS: tuple[tuple[str, str, str], ...] = (
    ("digitalocean", "sys_vendor", r"DigitalOcean"),
    ("hetzner", "sys_vendor", r"Hetzner"),
    ("linode", "sys_vendor", r"(Linode|Akamai)"),
    ("vultr", "sys_vendor", r"Vultr"),
    ("ec2", "sys_vendor", r"Amazon EC2"),
    ("ec2", "bios_vendor", r"Amazon EC2"),
    ("ec2", "bios_version", r".*\bamazon$"),
    ("gce", "product_name", r"Google Compute Engine"),
    ("azure", "chassis_asset_tag", r"7783-7084-3265-9085-8269-3286-77$"),
)
# OVH's DMI says "OpenStack Nova", like that of many providers. OVH's resolver identifies it: it is the default on every
# instance ("Change your instance's DNS servers", OVH guide g1985).
_OVH_RESOLVERS = ("213.186.33.99", "2001:41d0:3:163::1")
_RESOLVER_FILES = ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf")

# DMI prefix → hypervisor (systemd's virt.c); True for hypervisors for desktops.
_HYPERVISORS: tuple[tuple[str, str, bool], ...] = (
    ("KVM", "kvm", False),
    ("OpenStack", "kvm", False),
    ("KubeVirt", "kvm", False),
    ("QEMU", "qemu", False),
    ("Bochs", "qemu", False),
    ("VMware", "vmware", False),
    ("VMW", "vmware", False),
    ("Xen", "xen", False),
    ("Virtual Machine", "hyper-v", False),
    ("Hyper-V", "hyper-v", False),
    ("BHYVE", "bhyve", False),
    ("VirtualBox", "virtualbox", True),
    ("innotek GmbH", "virtualbox", True),
    ("Parallels", "parallels", True),
    ("Apple Virtualization", "apple", True),
)
_DESKTOP_FILES = (
    "/etc/systemd/system/display-manager.service",
    "/usr/share/xsessions",
    "/usr/share/wayland-sessions",
)

# Environment variable → system, most specific first (Forgejo and Gitea also set GitHub's). CI=true alone is no
# evidence: users export it to make tools less verbose.
_CI_SYSTEMS: tuple[tuple[str, str], ...] = (
    ("FORGEJO_ACTIONS", "forgejo"),
    ("GITEA_ACTIONS", "gitea"),
    ("GITHUB_ACTIONS", "github_actions"),
    ("GITLAB_CI", "gitlab"),
    ("CIRCLECI", "circleci"),
    ("TRAVIS", "travis"),
    ("TF_BUILD", "azure_pipelines"),
    ("BUILDKITE", "buildkite"),
    ("BITBUCKET_BUILD_NUMBER", "bitbucket"),
    ("CIRRUS_CI", "cirrus"),
    ("DRONE", "drone"),
    ("CODEBUILD_BUILD_ID", "codebuild"),
    ("TEAMCITY_VERSION", "teamcity"),
    ("JENKINS_URL", "jenkins"),
)
_REPLIT_VARIABLES = ("REPL_ID", "REPLIT_DEPLOYMENT", "REPLIT_DEV_DOMAIN", "REPL_SLUG", "REPL_OWNER")

_CONTAINER_NAMES = {
    "docker": "docker",
    "podman": "podman",
    "oci": "podman",
    "lxc": "lxc",
    "lxc-libvirt": "lxc",
    "systemd-nspawn": "nspawn",
    "openvz": "openvz",
    "wsl": "wsl",
}
_CONTAINER_GROUPS: tuple[tuple[str, str], ...] = (
    (r"/kubepods", "kubernetes"),
    (r"/libpod|libpod-[0-9a-f]+\.scope", "podman"),
    (r"/docker[/-]|docker-[0-9a-f]+\.scope", "docker"),
    (r"/lxc(\.payload)?[./]", "lxc"),
)
# Files on these are lost when the container is removed or the machine restarts.
_VOLATILE_FILE_SYSTEMS = ("tmpfs", "ramfs", "rootfs", "overlay", "aufs")
# Used if PATH is not set.
_DEFAULT_PATH = ("/usr/local/bin", "/usr/bin", "/bin")

_KindFinding = tuple[str, str | None, str, str] | None  # kind, flavor, source, value
_CapabilityFinding = tuple[bool, str, str]  # verdict, source, value


@dataclass(frozen=True)
class Evidence:
    """The reason for a verdict.

    :param verdict: ``name=value``.
    :param source: a file, an environment variable or an argument.
    :param value: what the source contained.
    """

    verdict: str
    source: str
    value: str


@dataclass(frozen=True)
class Overrides:
    """Values that the user sets; None and missing ones are detected."""

    kind: str | None = None
    provider: str | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """The kind and the capabilities of a host."""

    kind: str
    flavor: str | None
    provider: str | None
    capabilities: dict[str, bool]
    cpus: int
    memory_mb: int | None
    packages: list[str]
    overridden: bool
    evidence: list[Evidence]


def detect(host: Host, overrides: Overrides | None = None) -> Environment:
    """Detect the kind and the capabilities of a host.

    The first match determines the kind:

    1. the caller's override, then the variable ``AAPANEL_ENVIRONMENT_KIND`` on the target;
    2. ``replit``: Replit's variables or ``/run/replit`` (a Replit machine is also a container in a cloud);
    3. ``ci``: the variable of a known CI system (runners are also containers or cloud machines);
    4. ``container``: files or variables of a container manager, with or without systemd; WSL is ``local``;
    5. ``vps``: a provider known by DMI (also without a hypervisor), or a hypervisor for servers on a host without a
       desktop;
    6. ``local``: everything else, mostly bare metal.

    :raises DetectionError: an override is invalid.
    """
    overrides = overrides or Overrides()
    evidence: list[Evidence] = []
    provider = _override_provider(overrides, evidence) or _find_provider(host, evidence)
    found_kind, flavor, reasons = _find_kind(host, provider)
    kind = _override_kind(host, overrides, evidence)
    overridden = bool(overrides.kind or overrides.provider or overrides.capabilities or kind)
    if kind is None:
        kind = found_kind
        evidence += reasons
    elif kind != found_kind:
        flavor = None
    capabilities = _find_capabilities(host, kind, flavor, evidence)
    for name, value in overrides.capabilities.items():
        if name not in CAPABILITIES:
            raise DetectionError(f"capabilities.{name}: unknown capability; valid names: {', '.join(CAPABILITIES)}")
        capabilities[name] = value
        _replace(evidence, Evidence(f"{name}={_bool_text(value)}", "argument capabilities", _bool_text(value)))
    return Environment(
        kind=kind,
        flavor=flavor,
        provider=provider,
        capabilities=capabilities,
        cpus=usable_cpus(host),
        memory_mb=usable_memory_mb(host),
        packages=installed_packages(host),
        overridden=overridden,
        evidence=evidence,
    )


def describe(
    host: Host, overrides: Overrides, requested: Mapping[str, object], variable: str = "features"
) -> dict[str, object]:
    """Return the module's results: the environment, the decision for each feature, and the problems.

    :param requested: the user's choices, by feature.
    :param variable: the name of ``requested`` in the problems.
    :raises DetectionError: an override is invalid.
    """
    environment = detect(host, overrides)
    decisions, problems = decide(environment.capabilities, requested, variable=variable)
    return {
        "kind": environment.kind,
        "flavor": environment.flavor,
        "provider": environment.provider,
        "capabilities": environment.capabilities,
        "cpus": environment.cpus,
        "memory_mb": environment.memory_mb,
        "packages": environment.packages,
        "overridden": environment.overridden,
        "evidence": [{"verdict": e.verdict, "source": e.source, "value": e.value} for e in environment.evidence],
        "features": {name: decision.as_dict() for name, decision in decisions.items()},
        "problems": problems,
    }


# --- kind and provider ------------------------------------------------------------------------------------------------


def _override_kind(host: Host, overrides: Overrides, evidence: list[Evidence]) -> str | None:
    candidates = ((overrides.kind, "argument kind"), (host.env.get(KIND_VARIABLE), f"environment {KIND_VARIABLE}"))
    for value, source in candidates:
        if value:
            if value not in KINDS:
                raise DetectionError(f"{source}: unknown kind {value!r}; valid kinds: {', '.join(KINDS)}")
            evidence.append(Evidence(f"kind={value}", source, value))
            return value
    return None


def _override_provider(overrides: Overrides, evidence: list[Evidence]) -> str | None:
    value = overrides.provider
    if not value:
        return None
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
        raise DetectionError(f"argument provider: invalid name {value!r}; use a-z, 0-9, - and _, such as hetzner")
    evidence.append(Evidence(f"provider={value}", "argument provider", value))
    return value


def _find_provider(host: Host, evidence: list[Evidence]) -> str | None:
    for provider, name, pattern in _PROVIDERS:
        value = host.read(_DMI + name)
        if value and re.match(pattern, value):
            evidence.append(Evidence(f"provider={provider}", _DMI + name, value))
            return provider
    # EC2 instances on Xen without DMI.
    uuid = host.read("/sys/hypervisor/uuid")
    if uuid and uuid.lower().startswith("ec2"):
        evidence.append(Evidence("provider=ec2", "/sys/hypervisor/uuid", "ec2…"))
        return "ec2"
    if (host.read(_DMI + "product_name") or "").startswith("OpenStack"):
        for name in _RESOLVER_FILES:
            words = (host.read(name) or "").split()
            resolver = next((address for address in _OVH_RESOLVERS if address in words), None)
            if resolver:
                evidence.append(Evidence("provider=ovh", name, resolver))
                return "ovh"
    return None


def _find_kind(host: Host, provider: str | None) -> tuple[str, str | None, list[Evidence]]:
    for find in (_find_replit, _find_ci, _find_container):
        found = find(host)
        if found:
            kind, flavor, source, value = found
            return kind, flavor, [Evidence(f"kind={kind}", source, value)]
    if provider:
        return "vps", None, [Evidence("kind=vps", "provider", provider)]
    return _find_machine(host)


def _find_replit(host: Host) -> _KindFinding:
    # Do not report the values: they contain the names of the user and the project.
    flavor = "deployment" if host.env.get("REPLIT_DEPLOYMENT") else "workspace"
    for name in _REPLIT_VARIABLES:
        if host.env.get(name):
            return "replit", flavor, f"environment {name}", "set"
    # The variables are not set over SSH and sudo.
    if host.is_dir("/run/replit"):
        return "replit", flavor, "/run/replit", "exists"
    return None


def _find_ci(host: Host) -> _KindFinding:
    for name, flavor in _CI_SYSTEMS:
        value = host.env.get(name, "")
        if value and value.lower() not in ("false", "0"):
            return "ci", flavor, f"environment {name}", "set"
    return None


def _find_container(host: Host) -> _KindFinding:
    found = _container_by_name(host) or _container_by_marker(host)
    if found is None:
        release = host.read("/proc/sys/kernel/osrelease") or ""
        # "Microsoft" is WSL 1, "microsoft-standard-WSL2" is WSL 2. Containers in WSL share its kernel, so check for
        # containers first.
        if "Microsoft" in release or "WSL" in release:
            found = ("wsl", "/proc/sys/kernel/osrelease", release)
    if found is None:
        return None
    flavor, source, value = found
    return "local" if flavor == "wsl" else "container", flavor, source, value


def _container_by_name(host: Host) -> tuple[str, str, str] | None:
    """Return flavor, source and value from the name that the container manager set, or None.

    Source: systemd's CONTAINER_INTERFACE; systemd-detect-virt checks the same.
    """
    pid1 = (host.read("/proc/1/environ") or "").split("\0")
    named = (
        ("/run/host/container-manager", host.read("/run/host/container-manager")),
        ("/run/systemd/container", host.read("/run/systemd/container")),
        ("/proc/1/environ", next((item[len("container=") :] for item in pid1 if item.startswith("container=")), None)),
        ("environment container", host.env.get("container")),
    )
    for source, value in named:
        if value:
            return _CONTAINER_NAMES.get(value, "other"), source, value
    return None


def _container_by_marker(host: Host) -> tuple[str, str, str] | None:
    if host.env.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes", "environment KUBERNETES_SERVICE_HOST", "set"
    # /proc/bc exists only on the OpenVZ host itself.
    if host.first("/proc/vz") and not host.first("/proc/bc"):
        return "openvz", "/proc/vz", "exists"
    for path, flavor in (
        ("/run/.containerenv", "podman"),
        ("/dev/lxd/sock", "lxc"),
        ("/dev/.lxc", "lxc"),
        ("/.dockerenv", "docker"),
    ):
        if host.first(path):
            return flavor, path, "exists"
    groups = host.read("/proc/1/cgroup") or ""
    for pattern, flavor in _CONTAINER_GROUPS:
        match = re.search(pattern, groups)
        if match:
            return flavor, "/proc/1/cgroup", match.group().strip("/")
    return None


def _find_machine(host: Host) -> tuple[str, str | None, list[Evidence]]:
    """Return kind (``vps`` or ``local``), flavor and evidence of a machine without a known provider."""
    found = _find_hypervisor(host)
    if found is None:
        return "local", "bare_metal", [Evidence("kind=local", "/proc/cpuinfo, " + _DMI, "no hypervisor")]
    flavor, source, value, on_desktop = found
    desktop = host.first(*_DESKTOP_FILES)
    evidence = Evidence("kind=local" if on_desktop or desktop else "kind=vps", source, value)
    if on_desktop:
        return "local", flavor, [evidence]
    if desktop:
        return "local", flavor, [evidence, Evidence("kind=local", desktop, "exists")]
    return "vps", flavor, [evidence]


def _find_hypervisor(host: Host) -> tuple[str, str, str, bool] | None:
    """Return name, source, value, and whether it is a hypervisor for desktops; None on bare metal."""
    # A Xen dom0 is bare metal.
    if "control_d" in (host.read("/proc/xen/capabilities") or ""):
        return None
    for name in ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version"):
        value = host.read(_DMI + name) or ""
        for prefix, hypervisor, on_desktop in _HYPERVISORS:
            if value.startswith(prefix):
                return hypervisor, _DMI + name, value, on_desktop
    for path in ("/sys/hypervisor/type", "/proc/device-tree/hypervisor/compatible"):
        value = (host.read(path) or "").strip("\0")
        if value:
            return value.rpartition(",")[2], path, value, False
    for line in (host.read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("flags") and "hypervisor" in line.split():
            return "unknown", "/proc/cpuinfo", "hypervisor", False
    return None


# --- capabilities -----------------------------------------------------------------------------------------------------


def _find_capabilities(host: Host, kind: str, flavor: str | None, evidence: list[Evidence]) -> dict[str, bool]:
    root = _is_root(host)
    answers = {
        "root": root,
        "systemd": _has_systemd(host),
        "cron": _has_cron(host),
        "apt": _has_apt(host),
        "package_lists": package_lists(host),
        "netfilter": _has_netfilter(host),
        "docker": _has_docker(host),
        "persistent_home": _has_persistent_home(host, kind, flavor),
        "user_namespaces": _has_user_namespaces(host, root[0]),
    }
    evidence += [Evidence(f"{name}={_bool_text(yes)}", source, value) for name, (yes, source, value) in answers.items()]
    return {name: yes for name, (yes, _source, _value) in answers.items()}


def _is_root(host: Host) -> _CapabilityFinding:
    uids = (host.status("Uid") or "").split()
    effective = uids[1] if len(uids) > 1 else "unknown"
    return effective == "0", "/proc/self/status", f"effective uid {effective}"


def _has_systemd(host: Host) -> _CapabilityFinding:
    comm = host.read("/proc/1/comm") or "unknown"
    if comm != "systemd":
        return False, "/proc/1/comm", comm
    # sd_booted(3): the folder exists only if systemd is the init system.
    booted = host.is_dir("/run/systemd/system")
    return booted, "/run/systemd/system", "exists" if booted else "missing"


def _has_cron(host: Host) -> _CapabilityFinding:
    folders = [folder for folder in host.env.get("PATH", "").split(":") if folder.startswith("/")]
    tool = host.first(*(posixpath.join(folder, "crontab") for folder in folders or _DEFAULT_PATH))
    if tool is None:
        return False, "environment PATH", "no crontab"
    # Containers often have the crontab program, but no running daemon.
    for process in filter(str.isdecimal, host.names("/proc")):
        if (name := host.read(f"/proc/{process}/comm")) in _CRON_DAEMONS:
            return True, f"/proc/{process}/comm", name
    # If processes of other users are hidden (hidepid), use the daemon's pid file.
    file = None if host.read("/proc/1/comm") else host.first("/run/crond.pid", "/run/cron.pid")
    return file is not None, file or tool, "exists" if file else "exists, but no cron runs"


def _has_apt(host: Host) -> _CapabilityFinding:
    tool = host.first("/usr/bin/apt-get")
    if tool is None:
        return False, "/usr/bin/apt-get", "missing"
    base = host.first("/var/lib/dpkg/status")
    # On Replit and in slim images, apt-get may be installed without a dpkg database.
    return base is not None, "/var/lib/dpkg/status", "exists" if base else "missing"


def _has_netfilter(host: Host) -> _CapabilityFinding:
    mask = host.status("CapEff") or "0"
    if not re.fullmatch(r"[0-9a-fA-F]+", mask) or not int(mask, 16) >> _CAP_NET_ADMIN & 1:
        return False, "/proc/self/status", "no CAP_NET_ADMIN"
    tools = [f"/{folder}/{tool}" for folder in ("usr/sbin", "sbin", "usr/bin") for tool in ("nft", "iptables")]
    trace = host.first(*tools, "/proc/sys/net/netfilter", "/proc/net/ip_tables_names", "/proc/net/netfilter")
    return trace is not None, trace or "nft, iptables, /proc/sys/net/netfilter", "exists" if trace else "missing"


def _has_docker(host: Host) -> _CapabilityFinding:
    sockets = ["/run/docker.sock", "/var/run/docker.sock"]
    named = host.env.get("DOCKER_HOST", "")
    if named.startswith("unix://"):
        sockets.insert(0, named[len("unix://") :])
    if host.env.get("XDG_RUNTIME_DIR"):
        sockets.append(posixpath.join(host.env["XDG_RUNTIME_DIR"], "docker.sock"))
    for path in sockets:
        if host.first(path) and host.engine_answers(path):
            return True, path, "answers"
    seen = host.first(*sockets)
    return False, seen or sockets[0], "no answer" if seen else "missing"


def _has_persistent_home(host: Host, kind: str, flavor: str | None) -> _CapabilityFinding:
    if kind == "ci":
        return False, "kind", kind
    if kind == "replit":
        # Replit's guide: a publish resets the files of a deployment; a workspace keeps its project folder.
        return flavor != "deployment", "flavor", flavor or "unknown"
    home = posixpath.normpath(host.env.get("HOME") or "/root")
    best, kept = "", "unknown"
    for line in (host.read("/proc/self/mountinfo") or "").splitlines():
        # proc_pid_mountinfo(5): field 5 is the mount point, the type follows the separate dash.
        fields, _dash, tail = line.partition(" - ")
        point, file_system = fields.split()[4:5], tail.split()[:1]
        if not point or not file_system:
            continue
        inside = point[0] == "/" or home == point[0] or home.startswith(point[0] + "/")
        # A later mount on the same point covers the earlier one.
        if inside and len(point[0]) >= len(best):
            best, kept = point[0], file_system[0]
    if kept == "unknown":
        return kind != "container", "/proc/self/mountinfo", kept
    return kept not in _VOLATILE_FILE_SYSTEMS, "/proc/self/mountinfo", f"{best} is {kept}"


def _has_user_namespaces(host: Host, root: bool) -> _CapabilityFinding:
    path = "/proc/sys/user/max_user_namespaces"
    limit = host.read(path) or "missing"
    if not limit.isdecimal() or int(limit) == 0:
        return False, path, limit
    # Debian's and Ubuntu's settings for unprivileged users.
    for path, refusal in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        value = host.read(path)
        if value == refusal and not root:
            return False, path, value
    return True, "/proc/sys/user/max_user_namespaces", limit


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _replace(evidence: list[Evidence], new: Evidence) -> None:
    """Replace the evidence for the same name."""
    name = new.verdict.partition("=")[0]
    for index, old in enumerate(evidence):
        if old.verdict.partition("=")[0] == name:
            evidence[index] = new
            return
