"""What the hosts of a test cluster find in /etc: their names, keys that open every door, no DNS."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from cluster_network import address
from cluster_state import Place

# Debian's own, but for the keys, and with room for a launcher that opens many doors at once.
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
AcceptEnv LANG LC_*
MaxStartups 200
MaxSessions 200
"""
SSH_CONFIG = """\
Host *
    IdentityFile /etc/ssh/id
    IdentitiesOnly yes
    GlobalKnownHostsFile /etc/ssh/ssh_known_hosts
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ConnectTimeout 10
    LogLevel ERROR
    SendEnv LANG LC_*
"""
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"


def write_etc(place: Place, hosts: Sequence[str]) -> None:
    """Write every host's part of /etc. Hosts share one key pair, as cloned nodes often do."""
    first = place.of(hosts[0]) / "etc" / "ssh"
    first.mkdir(parents=True)
    for key in ("ssh_host_ed25519_key", "id"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(first / key)]
        subprocess.run(argv, check=True, timeout=30, stdin=subprocess.DEVNULL)
    host_key = (first / "ssh_host_ed25519_key.pub").read_text()
    contents = {
        "ssh_host_ed25519_key": (first / "ssh_host_ed25519_key").read_text(),
        "id": (first / "id").read_text(),
        "authorized_keys": (first / "id.pub").read_text(),
        "ssh_known_hosts": f"* {host_key}",
        "sshd_config": SSHD_CONFIG,
        "ssh_config": SSH_CONFIG,
    }
    for host in hosts:
        etc = place.of(host) / "etc"
        (etc / "ssh").mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (etc / "ssh" / name).write_text(text)
            (etc / "ssh" / name).chmod(0o600)  # ssh insists for its keys
        (etc / "slurm").mkdir()
        (etc / "hostname").write_text(f"{host}\n")
        (etc / "resolv.conf").write_text("")  # nobody listens, so an unknown name fails at once
        (etc / "nsswitch.conf").write_text(NSSWITCH)
        write_hosts(place, host, hosts)


def write_hosts(
    place: Place, host: str, hosts: Sequence[str], *, own_name_at_loopback: bool = False
) -> None:
    """Write the /etc/hosts of `host` afresh, perhaps with Debian's habit for its own name."""
    lines = ["127.0.0.1 localhost"]
    for other in hosts:
        is_own = other == host and own_name_at_loopback
        lines.append(f"{'127.0.1.1' if is_own else address(other)} {other}")
    # In place: the file is mounted over the host's /etc/hosts.
    (place.of(host) / "etc" / "hosts").write_text("\n".join(lines) + "\n")


def add_line(place: Place, host: str, line: str) -> None:
    with (place.of(host) / "etc" / "hosts").open("a") as file:
        file.write(line + "\n")
