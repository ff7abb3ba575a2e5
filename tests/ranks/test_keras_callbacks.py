"""model.fit with callbacks() in real ranks, and in one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from jobs import assert_ok, check_names, check_outcomes

PROGRAMS = ("rank_keras_callbacks.py", "rank_keras_metrics.py")
CHECKS = [(program, check) for program in PROGRAMS for check in check_names(program)]
# What can go wrong with a single rank, too.
ALONE = {
    "rank_keras_callbacks.py": [
        "check_steps_per_execution",
        "check_models_that_are_built_by_their_first_batch",
        "check_a_backup_of_rank_0_is_resumed_by_all",
        "check_rank_0_alone_writes",
        "check_scaled_rates_equal_one_process_schedule",
        "check_warm_up_epochs_of_unknown_length_are_refused",
        "check_an_optimizer_that_is_not_prepared_is_refused",
        "check_xla_is_turned_off",
    ],
    "rank_keras_metrics.py": [
        "check_training_and_its_logs_equal_one_process",
        "check_logs_of_unevenly_spread_samples",
        "check_evaluate_gives_all_samples_results",
        "check_logs_of_a_train_step_of_ones_own",
    ],
}
Outcomes = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module", params=(2, 3), ids=lambda n: f"{n}-ranks")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    return {program: check_outcomes(request.param, program) for program in PROGRAMS}


@pytest.mark.parametrize(("program", "check"), CHECKS)
def test_between_ranks(outcomes: Outcomes, program: str, check: str) -> None:
    assert_ok(outcomes[program], check)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_single_rank(program: str) -> None:
    names = ALONE[program]
    results = check_outcomes(1, program, *names)
    for check in names:
        assert_ok(results, check)


@pytest.mark.parametrize("call", ["callbacks()", "evaluate(None, None)"])
def test_before_init(call: str) -> None:
    code = f"import hvdtools.keras as hvt; hvt.{call}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    name = call.partition("(")[0]
    assert f"{name}() needs a running job: call init() first" in ended.stderr
