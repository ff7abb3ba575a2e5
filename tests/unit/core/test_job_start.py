"""What a rank is told before its Horovod starts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtools.core.topology import ALONE, LaunchEnvironment
from hvdtools.rendezvous import job_start

RULES = "OMPI_MCA_coll_tuned_dynamic_rules_filename"
ONE_EACH = replace(ALONE, launcher="Open MPI's mpirun", size=3, expect_size=3, expect_nodes=3)


@pytest.mark.parametrize(
    ("launch_env", "own", "has_rules"),
    [
        (ONE_EACH, {}, True),
        (ONE_EACH, {"OMPI_MCA_coll_tuned_allreduce_algorithm": "3"}, False),
        (ONE_EACH, {"OMPI_MCA_coll": "^han"}, False),
        (ONE_EACH, {"OMPI_MCA_coll_hcoll_enable": "0"}, True),
        (replace(ONE_EACH, size=4, expect_size=4), {}, False),
        (replace(ONE_EACH, expect_nodes=None), {}, False),
    ],
)
def test_who_gets_rules_for_a_ring(
    launch_env: LaunchEnvironment,
    own: dict[str, str],
    has_rules: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/root", **own})
    job_start._tune_for_cpus(launch_env, "mpi")
    assert (RULES in os.environ) == has_rules
    assert not has_rules or Path(os.environ[RULES]).is_file()
    assert own.items() <= os.environ.items()
