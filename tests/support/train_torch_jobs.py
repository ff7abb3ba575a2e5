"""Jobs of benchmarks/torch/train_torch.py for the tests, with what they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from jobs import Job, start_job

from hvdtools.bench.results.measured import Training, from_dict
from hvdtools.bench.run.runner import free_ports
from hvdtools.launch import detect_host

needs_horovod = pytest.mark.skipif(
    not detect_host().controllers, reason="needs a Horovod: run `hvdtools build`"
)


def train(
    ranks: int,
    *options: object,
    plants: dict[str, Any] | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Job:
    """Run the program, with what is planted, in `ranks` ranks; it must end well."""
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(ranks)),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    arguments = (json.dumps(plants or {}), *options)
    job = start_job(ranks, "rank_train_torch.py", *arguments, env={**meeting, **env})
    assert job.exit_code == 0, job.text
    return job


def lines_of(result: Path) -> dict[str, Training]:
    """Engine -> what the program wrote, in its order; each line is valid."""
    found = [from_dict("training", json.loads(line)) for line in result.read_text().splitlines()]
    assert all(isinstance(each, Training) for each in found)
    return {each.engine: each for each in found}  # type: ignore[union-attr, misc]
