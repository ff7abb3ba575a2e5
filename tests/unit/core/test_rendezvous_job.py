"""Settings of a rank before its Horovod starts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtools.core.topology import SINGLE_PROCESS, LaunchEnvironment
from hvdtools.rendezvous import job

RULES = "OMPI_MCA_coll_tuned_dynamic_rules_filename"
ONE_PER_HOST = replace(
    SINGLE_PROCESS, launcher="Open MPI's mpirun", size=3, expect_size=3, expect_nodes=3
)


@pytest.mark.parametrize(
    ("launch_env", "own", "has_rules"),
    [
        (ONE_PER_HOST, {}, True),
        (ONE_PER_HOST, {"OMPI_MCA_coll_tuned_allreduce_algorithm": "3"}, False),
        (ONE_PER_HOST, {"OMPI_MCA_coll": "^han"}, False),
        (ONE_PER_HOST, {"OMPI_MCA_coll_hcoll_enable": "0"}, True),
        (replace(ONE_PER_HOST, size=4, expect_size=4), {}, False),
        (replace(ONE_PER_HOST, expect_nodes=None), {}, False),
    ],
)
def test_hosts_with_one_rank_use_a_ring(
    launch_env: LaunchEnvironment,
    own: dict[str, str],
    has_rules: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/root", **own})
    job._tune_for_cpus(launch_env, "mpi")
    assert (RULES in os.environ) == has_rules
    assert not has_rules or Path(os.environ[RULES]).is_file()
    assert own.items() <= os.environ.items()
