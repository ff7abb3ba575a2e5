"""That a bed goes as it came, and where there can be none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import bed_why
import psutil
import pytest
from bed_hosts import HostsBed
from bed_state import BedError, Place, beds, is_alive
from paths import TESTS

BED = TESTS / "support" / "bed"


def test_down_leaves_nothing_of_a_bed_whose_maker_was_killed(hosts_bed: HostsBed) -> None:
    name = f"test-{os.getpid()}"
    maker = (
        f"import os, bed_hosts; bed = bed_hosts.HostsBed.up({name!r}, hosts=1)\n"
        "bed.popen('host1', ['sleep', '300']); bed.crash('login'); os.kill(os.getpid(), 9)"
    )
    try:
        made = subprocess.run([sys.executable, "-c", maker], cwd=BED, timeout=60)
        assert made.returncode == -signal.SIGKILL
        bed = HostsBed(name)
        inside = [psutil.Process(pid) for pid in (bed.init("host1"), bed.init("switch"))]
        inside += [psutil.Process(found.pid) for found in bed.processes("host1")]
        assert len(inside) == 3
        with pytest.raises(BedError, match=r"is up or has fallen over"):
            HostsBed.up(name)
    finally:
        done = subprocess.run(
            [sys.executable, BED / "bed.py", "down"],
            env={**os.environ, "HVDTOOLS_BED": name},
            timeout=60,
        )
    assert done.returncode == 0
    assert not any(map(is_alive, inside))
    assert Place(name).holders() == {} and name not in beds()
    assert name not in Path("/proc/self/mounts").read_text()
    # The other bed goes on.
    assert hosts_bed.exec("login", ["ssh", "host1", "hostname"]).stdout == "host1\n"


def test_why_there_can_be_no_bed(monkeypatch: pytest.MonkeyPatch) -> None:
    why = bed_why.why_no_bed.__wrapped__
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why() == "several hosts on one machine need root."
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setitem(bed_why.FOR_HOSTS, "a-missing-program", "a-package")
    assert why() == "a-missing-program is missing here: apt-get install a-package"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert why() == "several hosts on one machine need Linux's namespaces."


def test_a_bed_has_a_plain_name() -> None:
    for name in ("", "../x", "A", "x" * 33):
        with pytest.raises(BedError, match=r"a bed's name is"):
            Place(name)
