"""Results of older schema versions, brought to the current one.

Version 1 knew PyTorch alone, version 2 Keras too; both recorded one job an engine, and neither
the phases of a step nor each rank's own time. Version 4 is version 3 in the field's terms.
"""

from __future__ import annotations

import statistics
from typing import Any

from hvdtools.bench.suite.engines import FAMILIES, RENAMED_ENGINES
from hvdtools.core.errors import HvdtoolsError

SCHEMA_VERSION = 4
_RENAMED = {"side_by_side": "interleaved", "round": "repeat"}
_RENAMED_IN_MEASURED = {"moved_by": "transport", "messages": "allreduces_per_step"}
# Engines before version 3; a prefix "keras-" told the frameworks apart.
_RENAMED_BEFORE_3 = {"ddp-gloo": "ddp"}

Table = dict[str, Any]


def migrated(table: Table) -> Table:
    """The fields of a result of any version, as the current version has them.

    Raises:
        HvdtoolsError: The version is unknown, or a field that it had is missing.
    """
    version = table.get("schema_version")
    if version == SCHEMA_VERSION:
        return table
    steps = {1: _from_1, 2: _from_2, 3: _from_3}
    if version not in steps:
        raise HvdtoolsError(
            f"A result has schema version {version}, and this hvdtools reads 1 to "
            f"{SCHEMA_VERSION}: update hvdtools, or start a new folder with --out."
        )
    try:
        for number in range(version, SCHEMA_VERSION):
            table = steps[number](table)
    except (KeyError, TypeError, AttributeError) as error:
        raise HvdtoolsError(
            f"A result of schema version {version} has missing or unknown fields ({error}): was "
            "it edited?"
        ) from None
    return table


def _from_1(table: Table) -> Table:
    added = {"framework": "torch", "program": "train_torch.py", "model": "cnn", "data": "digits"}
    return {**table, **added, "schema_version": 2}


def _from_2(table: Table) -> Table:
    kept = "run_id time_utc suite program scaling ranks round wall_s exit_code error command"
    family = table["framework"]
    engine = table["engine"].removeprefix("keras-")
    engine = _RENAMED_BEFORE_3.get(engine, engine)
    worked = table["error"] is None
    return {
        **{name: table[name] for name in kept.split()},
        **{name: table[name] for name in ("versions", "hardware", "environment")},
        "suite_digest": "",  # not recorded, so no suite equals it
        "family": family,
        "kind": "training",
        "options": {name: table[name] for name in ("model", "data")}
        | {"batch_size": table["batch_per_rank"]},
        "engine": engine,
        "side_by_side": [engine],
        "nodes": 1,
        "measured": _training_of_2(table, family, engine) if worked else None,
        "schema_version": 3,
    }


def _training_of_2(table: Table, family: str, engine: str) -> Table:
    kept = "model data device moved_by batch_per_rank threads_per_rank lr steps_per_block block_s"
    # A block's time is its slowest rank's, which stands for every rank.
    step_s = statistics.median(table["block_s"]) / table["steps_per_block"]
    return {
        **{name: table[name] for name in kept.split()},
        **{name: table[name] for name in ("accuracy", "in_sync")},
        "engine": FAMILIES[family].engines[engine].program_engine,
        "precision": "float32",
        "parameters": None,
        "gradient_bytes": None,
        "messages": None,
        "rank_step_s": [step_s] * table["ranks"],
        "phase_s": {},
        "peak_memory_bytes": [],
        "stopped_by": "blocks",
    }


def _from_3(table: Table) -> Table:
    made = {_RENAMED.get(name, name): value for name, value in table.items()}
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


def _measured_of_3(measured: Table) -> Table:
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
