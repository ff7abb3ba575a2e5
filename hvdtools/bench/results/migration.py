"""Migrates results of older schema versions to the current one.

Version 1 has PyTorch only, version 2 Keras as well; both have one job for each engine, and
neither the phases of a step nor the times of each rank. Version 4 renames fields of version 3.
"""

from __future__ import annotations

import statistics
from typing import Any

from hvdtools.bench.suite.engines import FAMILIES, RENAMED_ENGINES
from hvdtools.core.errors import HvdtoolsError

SCHEMA_VERSION = 4
_RENAMED = {"side_by_side": "interleaved", "round": "repeat"}
_RENAMED_IN_MEASURED = {"moved_by": "transport", "messages": "allreduces_per_step"}
# Engines before version 3; those of Keras had the prefix "keras-".
_RENAMED_BEFORE_3 = {"ddp-gloo": "ddp"}

Fields = dict[str, Any]


def migrate(fields: Fields) -> Fields:
    """The fields of a result of any version as those of the current one.

    Raises:
        HvdtoolsError: The version is unknown, or a field that it had is missing.
    """
    version = fields.get("schema_version")
    if version == SCHEMA_VERSION:
        return fields
    steps = {1: _from_1, 2: _from_2, 3: _from_3}
    if version not in steps:
        raise HvdtoolsError(
            f"A result has schema version {version}, and this version of hvdtools reads 1 to "
            f"{SCHEMA_VERSION}: update hvdtools, or start a new folder with --out."
        )
    try:
        for number in range(version, SCHEMA_VERSION):
            fields = steps[number](fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise HvdtoolsError(
            f"A result of schema version {version} has missing or unknown fields ({error}): was "
            "it edited?"
        ) from None
    return fields


def _from_1(fields: Fields) -> Fields:
    added = {"framework": "torch", "program": "train_torch.py", "model": "cnn", "data": "digits"}
    return {**fields, **added, "schema_version": 2}


def _from_2(fields: Fields) -> Fields:
    kept = "run_id time_utc suite program scaling ranks round wall_s exit_code error command"
    family = fields["framework"]
    engine = fields["engine"].removeprefix("keras-")
    engine = _RENAMED_BEFORE_3.get(engine, engine)
    worked = fields["error"] is None
    return {
        **{name: fields[name] for name in kept.split()},
        **{name: fields[name] for name in ("versions", "hardware", "environment")},
        "suite_digest": "",  # not recorded; no suite has it
        "family": family,
        "kind": "training",
        "options": {name: fields[name] for name in ("model", "data")}
        | {"batch_size": fields["batch_per_rank"]},
        "engine": engine,
        "side_by_side": [engine],
        "nodes": 1,
        "measured": _training_of_2(fields, family, engine) if worked else None,
        "schema_version": 3,
    }


def _training_of_2(fields: Fields, family: str, engine: str) -> Fields:
    kept = "model data device moved_by batch_per_rank threads_per_rank lr steps_per_block block_s"
    # The time of a block is that of its slowest rank; the other ranks were not recorded.
    step_s = statistics.median(fields["block_s"]) / fields["steps_per_block"]
    return {
        **{name: fields[name] for name in kept.split()},
        **{name: fields[name] for name in ("accuracy", "in_sync")},
        "engine": FAMILIES[family].engines[engine].program_engine,
        "precision": "float32",
        "parameters": None,
        "gradient_bytes": None,
        "messages": None,
        "rank_step_s": [step_s] * fields["ranks"],
        "phase_s": {},
        "peak_memory_bytes": [],
        "stopped_by": "blocks",
    }


def _from_3(fields: Fields) -> Fields:
    made = {_RENAMED.get(name, name): value for name, value in fields.items()}
    made["engine"] = _engine(made["engine"])
    made["interleaved"] = [_engine(name) for name in made["interleaved"]]
    words = made["command"].replace(" --with ", " --launcher ").split(" ")
    made["command"] = " ".join(
        ",".join(map(_engine, word.split(","))) if before == "--engine" else word
        for before, word in zip(["", *words], words, strict=False)
    )
    if made["measured"] is not None:
        made["measured"] = _measured_of_3(made["measured"])
    return {**made, "schema_version": 4}


def _measured_of_3(measured: Fields) -> Fields:
    made = {_RENAMED_IN_MEASURED.get(name, name): value for name, value in measured.items()}
    made["engine"] = _engine(made["engine"])
    if "points" in made:
        made["points"] = [
            {"unsupported" if name == "refused" else name: value for name, value in point.items()}
            for point in made["points"]
        ]
    return made


def _engine(name: str) -> str:
    return RENAMED_ENGINES.get(name, name)
