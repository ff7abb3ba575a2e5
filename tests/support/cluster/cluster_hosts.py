"""Several hosts on this one machine: `login`, `host1`, `host2`, ... with ssh between them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cluster_etc
import cluster_namespaces
import cluster_network
import psutil
from cluster_network import LOGIN, MAIN_NIC, SWITCH, Network, address
from cluster_processes import Running
from cluster_state import ClusterError, Place, end, living_in, wait_for

START_S = 20.0


class ClusterHosts(Running):
    """The hosts of the test cluster called `name`, which `up` has brought up, here or elsewhere.

    A method raises ClusterError where the cluster cannot do what is asked. What a method disturbs
    (cables, crashes, NICs, /etc/hosts, speed) `heal` puts right again.
    """

    def __init__(self, name: str) -> None:
        super().__init__(Place(name))
        self.disturbed = False
        # What schedulers start on a host whenever it boots.
        self.on_boot: list[Callable[[str], None]] = []

    @classmethod
    def up(cls, name: str, hosts: int = 4, seen: Sequence[str | Path] = ()) -> ClusterHosts:
        """Bring up `login` and `hosts` hosts.

        Args:
            name: The test cluster's name; two clusters do not see each other.
            seen: Folders below /tmp, /run or /dev/shm that the hosts see and share all the
                same. The project and its Python environment are always among them.
        """
        names = (LOGIN, *(f"host{n}" for n in range(1, hosts + 1)))
        project = Path(__file__).parents[3]
        folders = [project, Path(sys.prefix), Path(sys.base_prefix), *map(Path, seen)]
        place = Place(name)
        place.claim({"hosts": names, "seen": sorted({str(path.resolve()) for path in folders})})
        try:
            cluster_etc.write_etc(place, names)
            cluster_namespaces.hold(place, SWITCH, cluster_network.SWITCH_SCRIPT)
            cluster = cls(name)
            cluster._start(names)
        except BaseException:
            place.end()
            raise
        return cluster

    def down(self) -> None:
        """End everything on the hosts and leave no trace of them."""
        self.place.end()

    @property
    def shared(self) -> Path:
        """A folder that all hosts and this machine see under the same name."""
        return self.place.shared

    def cut(self, host: str) -> None:
        """Pull the cables of `host` at the switch: packets vanish, nobody is told."""
        self.disturbed = True
        self._network(host).cut(host)

    def join(self, host: str) -> None:
        """Put them back."""
        self._network(host).join(host)

    def is_cut(self, host: str) -> bool:
        return self._network(host).is_cut(host)

    def crash(self, host: str) -> None:
        """Cut the power of `host`: its peers hear no goodbye, and all its processes are gone."""
        init = psutil.Process(self.init(host))
        self.cut(host)
        end([*living_in([init]), self.place.holders()[host]])
        self._network(host).unplug(host)

    def boot(self, host: str) -> None:
        """Start `host` after a crash, with its eth0 only; its /tmp is as it was."""
        if self.is_up(host):
            raise ClusterError(f"{host} is up.")
        self._start([host])

    def nic(self, host: str, up: bool) -> None:
        """Switch the host's own eth0 on or off."""
        self.disturbed = True
        cluster_network.ip(self.init(host), [f"link set {MAIN_NIC} {'up' if up else 'down'}"])

    def add_nic(
        self, host: str, nic: str = "eth1", cidr: str | None = None, *, cabled: bool = True
    ) -> None:
        """Give `host` one more NIC; its name and the host's have 14 letters at most.

        Args:
            cidr: Its address, as 172.17.0.1/16; for eth1 that of its subnet unless given.
            cabled: Whether it is in one LAN with the NICs of that name on other hosts.
        """
        if cidr is None and nic not in cluster_network.SUBNETS:
            raise ClusterError(f"{nic} needs an address such as 172.17.0.1/16.")
        self.disturbed = True
        own = cidr or f"{address(host, nic)}/24"
        self._network(host).plug(host, self.init(host), nic, own, cabled=cabled)

    def shape(self, rate: str | None) -> None:
        """Let every host send at `rate` at most, as 1gbit or 200mbit; None lifts the limit."""
        self.disturbed = True
        for host in filter(self.is_up, self.hosts):
            cluster_network.shape(self.init(host), rate)

    def loopback_name(self, host: str, on: bool = True) -> None:
        """Whether `host` resolves its own name to 127.0.1.1, as Debian sets up its machines.

        Its /etc/hosts is written afresh.
        """
        self._network(host)
        self.disturbed = True
        cluster_etc.write_hosts(self.place, host, self.hosts, own_name_at_loopback=on)

    def add_line_to_etc_hosts(self, host: str, line: str) -> None:
        self._network(host)
        self.disturbed = True
        cluster_etc.add_line(self.place, host, line)

    def heal(self) -> list[str]:
        """Undo what was disturbed, and kill what still runs. Returns the hosts that it booted."""
        # Slurm takes a node out of work if its slurmstepd is killed; it ends with what it runs.
        end(process for process, found in self.guests() if not found.is_step)
        if not self.disturbed:
            return []
        crashed = [host for host in self.hosts if not self.is_up(host)]
        self._start(crashed)
        self.shape(None)
        for host in self.hosts:
            self._network(host).unplug(host, keep=MAIN_NIC)
            self.join(host)
            self.nic(host, True)
            self.loopback_name(host, False)
        self.disturbed = False
        return crashed

    def _start(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            cluster_namespaces.hold(
                self.place, host, cluster_namespaces.furnish(self.place, host, self.seen)
            )
        wait_for(lambda: self.is_up(SWITCH), "the switch", START_S)
        for host in hosts:
            try:
                wait_for(lambda host=host: self._has_sshd(host), "sshd", START_S)  # type: ignore[misc]
            except ClusterError as error:
                said = (self.place.log / host).read_text().strip()
                raise ClusterError(f"{host} does not come up: {error} {said}") from None
            self._network(host).plug(host, self.init(host), MAIN_NIC, f"{address(host)}/24")
        for host in hosts:
            for start in self.on_boot:
                start(host)

    def _network(self, host: str) -> Network:
        """The switch, to be asked for something of `host`."""
        if host not in self.hosts:
            raise ClusterError(f"there is no host {host!r}; there are {', '.join(self.hosts)}.")
        return Network(self.init(SWITCH))

    def _has_sshd(self, host: str) -> bool:
        init = self.find(host)
        return init is not None and cluster_namespaces.listens(init, 22)
