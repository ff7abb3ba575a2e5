"""scale_lr: the rates by hand in two real ranks, and its sentences."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.learning_rate import fraction


@pytest.fixture(name="optimizer")
def _optimizer() -> torch.optim.Optimizer:
    hvt.init()
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def test_one_rank_changes_nothing_and_says_so(
    optimizer: torch.optim.Optimizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hvdtools"):
        assert hvt.scale_lr(optimizer, warmup_steps=10) == 1
    assert caplog.messages == ["lr 0.1 -> 0.1 (linear, 1 rank)"]
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_plain_state_fits_one_rank(optimizer: torch.optim.Optimizer) -> None:
    plain = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    hvt.scale_lr(optimizer)
    optimizer.load_state_dict(plain.state_dict())
    record = optimizer.state_dict()["param_groups"][0]["hvdtools_scale_lr"]
    assert record["factor"] == 1  # so that two ranks will not take it for theirs


def test_a_state_of_four_ranks(optimizer: torch.optim.Optimizer) -> None:
    state = optimizer.state_dict()
    state["param_groups"][0]["hvdtools_scale_lr"] = {"factor": 4.0, "warmup_steps": 0, "step": 0}
    hvt.scale_lr(optimizer)
    with pytest.raises(HvdtoolsError, match="was scaled by 4 and this job scales by 1"):
        optimizer.load_state_dict(state)


def test_the_ramp_begins_at_the_old_rate_and_ends_at_the_new() -> None:
    steps = [fraction({"factor": 8.0, "warmup_steps": 7, "step": step}) for step in range(9)]
    assert steps == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policy": "cubic"}, "Unknown policy 'cubic': choose one of linear, none, sqrt"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must be a whole number of 0 or more"),
        ({"warmup_steps": 0.5}, "warmup_steps=0.5 must be a whole number"),
    ],
)
def test_options_out_of_range(
    optimizer: torch.optim.Optimizer, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(HvdtoolsError, match=sentence):
        hvt.scale_lr(optimizer, **options)
    assert hvt.scale_lr(optimizer) == 1  # the refused call left nothing behind


def test_a_second_call(optimizer: torch.optim.Optimizer) -> None:
    hvt.scale_lr(optimizer)
    with pytest.raises(HvdtoolsError, match="scaled already"):
        hvt.scale_lr(optimizer)


def test_a_scheduler_that_came_before(optimizer: torch.optim.Optimizer) -> None:
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(HvdtoolsError, match=r"call scale_lr\(\) before the scheduler is made"):
        hvt.scale_lr(optimizer)
