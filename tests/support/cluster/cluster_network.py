"""The cables of a test cluster: a switch with one LAN for each NIC's name, and a cable to each NIC.

The switch is a network namespace without a way out. A cable's end there is called
`host1.eth0`; its LAN is the bridge `lan-eth0`. A cable that goes nowhere, as a
container's bridge on one host does, ends in `host1-docker0` and is in no LAN.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence

from cluster_state import ClusterError

LOGIN = "login"
SWITCH = "switch"
SWITCH_SCRIPT = "exec sleep infinity"
MAIN_NIC = "eth0"
SUBNETS = {"eth0": "10.77.0", "eth1": "10.77.1"}
TIMEOUT_S = 10.0


def address(host: str, nic: str = MAIN_NIC) -> str:
    """The host's IPv4 address on the LAN of eth0 or eth1."""
    last = "100" if host == LOGIN else host.removeprefix("host")
    return f"{SUBNETS[nic]}.{last}"


class Network:
    """The switch, by the process that holds it. Its methods raise ClusterError if refused."""

    def __init__(self, switch: int) -> None:
        self._switch = switch

    def plug(self, host: str, pid: int, nic: str, cidr: str, *, cabled: bool = True) -> None:
        """Give `host`, whose process 1 is `pid`, a NIC with the address `cidr`."""
        end = f"{host}.{nic}" if cabled else f"{host}-{nic}"
        # The same hardware address after a crash, or the others go on calling the old one.
        mac = "02:" + hashlib.sha256(end.encode()).digest()[:5].hex(":")
        peer = f"peer name {nic} address {mac} netns {pid}"
        lines = [f"link add {end} type veth {peer}", f"link set {end} up"]
        if cabled:
            lan = f"lan-{nic}"
            if lan not in self._links():
                lines += [f"link add {lan} type bridge", f"link set {lan} up"]
            lines.append(f"link set {end} master {lan}")
        ip(self._switch, lines)
        ip(pid, ["link set lo up", f"addr add {cidr} dev {nic}", f"link set {nic} up"])

    def unplug(self, host: str, *, keep: str | None = None) -> None:
        """Take away the NICs of `host` but the one called `keep`."""
        ends = [end for end in self.ends(host) if end != f"{host}.{keep}"]
        try:
            ip(self._switch, [f"link del {end}" for end in ends])
        except ClusterError:
            if set(ends) & set(self.ends(host)):
                raise  # else they went by themselves, as a crashed host's do after a while

    def cut(self, host: str) -> None:
        """Nothing comes or goes on any LAN of `host` any more, and neither side is told."""
        ip(self._switch, [f"link set {end} nomaster" for end in self._cables(host)])

    def join(self, host: str) -> None:
        cables = self._cables(host)
        ip(self._switch, [f"link set {end} master lan-{end.split('.')[1]}" for end in cables])

    def is_cut(self, host: str) -> bool:
        links = self._links()
        return any(links[end] is None for end in self._cables(host))

    def ends(self, host: str) -> list[str]:
        """The switch's ends of all of the host's NICs."""
        return [name for name in self._links() if name.startswith((f"{host}.", f"{host}-"))]

    def _cables(self, host: str) -> list[str]:
        return [end for end in self.ends(host) if "." in end]

    def _links(self) -> dict[str, str | None]:
        """The switch's links -> the LAN each is in."""
        links = json.loads(_run(self._switch, ["ip", "-json", "link", "show"]))
        return {link["ifname"]: link.get("master") for link in links}


def shape(pid: int, rate: str | None) -> None:
    """Let the host send at no more than `rate` (tc's units: 1gbit, 200mbit); None lifts it."""
    if rate is not None:
        limit = ["rate", rate, "burst", "256kb", "latency", "20ms"]
        _run(pid, ["tc", "qdisc", "replace", "dev", MAIN_NIC, "root", "tbf", *limit])
    elif "tbf" in _run(pid, ["tc", "qdisc", "show", "dev", MAIN_NIC]):
        _run(pid, ["tc", "qdisc", "del", "dev", MAIN_NIC, "root"])


def ip(pid: int, lines: Sequence[str]) -> None:
    """Run these commands of `ip` in the network of process `pid`."""
    if lines:
        _run(pid, ["ip", "-batch", "-"], "\n".join(lines))


def _run(pid: int, argv: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(
        ["nsenter", f"--target={pid}", "--net", "--", *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(argv)} failed: {done.stderr.strip()} (given: {stdin})")
    return done.stdout
