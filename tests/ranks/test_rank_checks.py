"""What the adapters do between ranks: checks of many programs in sessions of real ranks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rank_sessions import RankCheck, rank_checks

# Program -> in sessions of how many ranks all of its checks run.
TORCH = {
    "rank_checks": (2, 3),
    "rank_proofs": (2, 3),
    "rank_batchnorm": (1, 2, 3),
    "rank_checkpoint": (1, 2),
    "rank_shards": (2, 3),
    "rank_learning_rate": (2,),
}
TENSORFLOW = {
    "rank_tensorflow": (1, 2, 3),
    "rank_keras": (1, 2, 3),
    "rank_keras_callbacks": (2, 3),
    "rank_keras_metrics": (2, 3),
    "rank_keras_shards": (2, 3),
}
# What can go wrong in a job of a single rank, too.
ALONE = [
    ("torch", "rank_shards", "check_weighted_training_equals_one_process"),
    ("tensorflow", "rank_keras_shards", "check_fit_on_a_dataset_equals_one_process"),
    *(
        ("tensorflow", "rank_keras_callbacks", check)
        for check in (
            "check_steps_per_execution",
            "check_models_that_are_built_by_their_first_batch",
            "check_a_backup_of_rank_0_is_resumed_by_all",
            "check_rank_0_alone_writes",
            "check_scaled_rates_equal_one_process_schedule",
            "check_warm_up_epochs_of_unknown_length_are_refused",
            "check_an_optimizer_that_is_not_prepared_is_refused",
            "check_xla_is_turned_off",
        )
    ),
    *(
        ("tensorflow", "rank_keras_metrics", check)
        for check in (
            "check_training_and_its_logs_equal_one_process",
            "check_logs_of_unevenly_spread_samples",
            "check_evaluate_gives_all_samples_results",
            "check_logs_of_a_train_step_of_ones_own",
        )
    ),
]
CHECKS = [
    *(
        check
        for framework, programs in (("torch", TORCH), ("tensorflow", TENSORFLOW))
        for program, sizes in programs.items()
        for ranks in sizes
        for check in rank_checks(framework, ranks, program)
    ),
    *(RankCheck(framework, 1, program, check) for framework, program, check in ALONE),
]


@pytest.mark.parametrize("rank_check", CHECKS, ids=str)
def test_between_ranks(
    rank_check: RankCheck, run_rank_check: Callable[[RankCheck], object]
) -> None:
    run_rank_check(rank_check)
