"""The adapters between ranks: checks of many programs in sessions of real ranks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rank_sessions import RankCheck, rank_checks

# Program -> in sessions of how many ranks all of its checks run.
TORCH = {
    "rank_checks": (2, 3),
    "rank_consistency": (2, 3),
    "rank_batchnorm": (1, 2, 3),
    "rank_checkpoint": (1, 2),
    "rank_shards": (2, 3),
    "rank_learning_rate": (2,),
    "rank_transport": (2,),  # of two numbers, float32 and float64 round the average alike
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
            "check_only_rank_0_writes",
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
            "check_logs_of_a_custom_train_step",
        )
    ),
]
# What takes seconds by itself runs on 2 ranks in the fast tests, on others in the slow ones. On
# 3 ranks other checks of the same kind stay: SGD in float64, embeddings under a tape, ...
LONG = {
    "rank_batchnorm": {"check_compiled", "check_the_layers_stay_the_users"},
    "rank_consistency": {"check_compiled_regions_keep_the_overlap"},
    "rank_shards": {"check_workers", "check_every_kind_in_every_mode"},
    "rank_keras": {
        "check_settings_equal_one_process",
        "check_optimizers_equal_one_process",
        "check_float32_to_rounding",
        "check_two_models_in_alternation",
        "check_a_loaded_model_resumes",
        "check_save_and_load",
        "check_saving_in_the_middle_of_an_accumulation",
        "check_a_saved_model_needs_neither_horovod_nor_hvdtools",
        "check_a_compiled_model_without_xla",
        "check_batch_norm_synchronized_in_branches",
    },
    "rank_keras_callbacks": {
        "check_early_stopping_stops_all_in_the_same_epoch",
        "check_models_that_are_built_by_their_first_batch",
        "check_a_backup_of_rank_0_is_resumed_by_all",
        "check_scaled_rates_equal_one_process_schedule",
        "check_two_networks_with_an_optimizer_each",
        "check_a_checkpoint_in_the_middle_of_an_accumulation",
    },
    "rank_keras_metrics": {"check_logs_of_unevenly_spread_samples"},
    "rank_keras_shards": {"check_fit_with_two_outputs_equals_one_process"},
}
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


def is_slow(check: RankCheck) -> bool:
    return check.ranks != 2 and check.check in LONG.get(check.program, ())


@pytest.mark.parametrize(
    "rank_check",
    [
        pytest.param(check, id=str(check), marks=pytest.mark.slow if is_slow(check) else ())
        for check in CHECKS
    ],
)
def test_between_ranks(
    rank_check: RankCheck, run_rank_check: Callable[[RankCheck], object]
) -> None:
    run_rank_check(rank_check)


def test_the_long_checks_are_there() -> None:
    known = {(check.program, check.check) for check in CHECKS}
    assert {(program, name) for program, names in LONG.items() for name in names} <= known
