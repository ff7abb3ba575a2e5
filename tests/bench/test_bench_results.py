"""Results: what is written can be read, matches its schema, and is never overwritten."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from bench_examples import allreduce_result, failed, loader_result, phases, training_result

import hvdtools.bench
from hvdtools.bench.results.measured import KINDS, Point
from hvdtools.bench.results.result_file import (
    FILE_NAME,
    Result,
    append,
    from_json,
    new_run_id,
    read,
    results_so_far,
)
from hvdtools.bench.run import environment
from hvdtools.bench.suite.engines import FAMILIES, as_it_ran
from hvdtools.core.errors import HvdtoolsError

SCHEMA: dict[str, Any] = json.loads(
    (Path(hvdtools.bench.__file__).parent / "results" / "results.schema.json").read_text()
)
EACH_KIND = [
    training_result("ddp", 2, phase_s=phases(2, 0.1, 0.2, 0.3, 0.4)),
    training_result("no_comm", 1, accuracy=None),
    failed(training_result("hvdtools-mpi", 2)),
    allreduce_result("horovod-mpi", 2),
    allreduce_result("mpi4py", 2, points=[Point(1024, "bfloat16", 16, 0, (), 0, "no such type")]),
    failed(allreduce_result("torch", 2)),
    loader_result(2),
]


@pytest.mark.parametrize("result", EACH_KIND, ids=lambda result: f"{result.kind}-{result.engine}")
def test_a_result_survives_a_round_trip_and_matches_the_schema(result: Result) -> None:
    line = result.to_json()
    assert "\n" not in line and from_json(line) == result
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(line))


def test_the_schema_lists_the_fields_of_the_classes() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for listed, made in (
        (SCHEMA, Result),
        *((SCHEMA["$defs"][kind], made) for kind, made in KINDS.items()),
        (SCHEMA["$defs"]["point"], Point),
    ):
        fields = {field.name for field in dataclasses.fields(made)}
        assert set(listed["properties"]) == set(listed["required"]) == fields
        assert listed["additionalProperties"] is False
    assert SCHEMA["properties"]["family"]["enum"] == list(FAMILIES)


BAD: dict[str, dict[str, Any]] = {
    "a number as text": {"ranks": "two"},
    "no rank": {"ranks": 0},
    "an old version": {"schema_version": 3},
    "an unknown field": {"mood": "good"},
    "a failure with numbers": {"error": "it failed"},
    "a success without numbers": {"measured": None},
    "an unknown scaling": {"scaling": "sideways"},
}


@pytest.mark.parametrize("wrong", BAD)
def test_the_schema_refuses(wrong: str) -> None:
    table = json.loads(training_result("ddp", 2).to_json())
    jsonschema.validate(table, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**table, **BAD[wrong]}, SCHEMA)


WHOLE = training_result("ddp", 1, block_s=(1.0, 0.5, 0.25))


def test_a_file_with_only_an_incomplete_line_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    assert results_so_far(file) == ()
    file.write_text(EACH_KIND[0].to_json()[:100])
    assert results_so_far(file) == ()
    with pytest.raises(HvdtoolsError, match="no complete result"):
        read(file)
    append(file, EACH_KIND[0])
    assert results_so_far(file) == read(file).results == (EACH_KIND[0],)


def test_an_incomplete_line_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    for turn in (1, 2):
        append(file, dataclasses.replace(WHOLE, repeat=turn))
    file.write_bytes(file.read_bytes()[:-40])
    reading = read(file)
    assert (len(reading.results), reading.incomplete_lines) == (1, 1)
    append(file, dataclasses.replace(WHOLE, repeat=3))
    reading = read(file)
    assert [each.repeat for each in reading.results] == [1, 3]
    assert reading.incomplete_lines == 1


def test_a_second_run_is_added_and_the_newest_is_shown(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    append(file, WHOLE)
    before = file.read_bytes()
    append(file, dataclasses.replace(WHOLE, run_id="run-2"))
    assert file.read_bytes().startswith(before)
    reading = read(file)
    assert [each.run_id for each in reading.of_run(None)] == ["run-2"]
    assert reading.of_run("run-1") == (WHOLE,)
    with pytest.raises(HvdtoolsError, match=r"Unknown run 'run-3': choose one of run-1, run-2"):
        reading.of_run("run-3")


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    with pytest.raises(HvdtoolsError, match="There are no results"):
        read(file)
    file.write_text("{\n")
    with pytest.raises(HvdtoolsError, match="no complete result"):
        read(file)
    for right, wrong, message in (
        ('"schema_version": 4', '"schema_version": 99', "schema version 99"),
        ('"lr"', '"rl"', r"\(lr, rl\)"),
        ('"suite"', '"siute"', r"\(siute, suite\)"),
        ('"engine": "ddp"', '"engine": "dpd"', "unknown engine 'dpd' of 'torch'"),
        ('"kind": "training"', '"kind": "straining"', "kind of result 'straining'"),
    ):
        assert right in WHOLE.to_json()
        file.write_text(WHOLE.to_json().replace(right, wrong))
        with pytest.raises(HvdtoolsError, match=message):
            read(file)


def test_run_ids_sort_by_time_and_differ() -> None:
    time_utc = "2026-01-31T12:00:00+00:00"
    assert new_run_id(time_utc).startswith("20260131T120000Z-")
    assert new_run_id(time_utc) < new_run_id("2026-01-31T12:00:01+00:00")
    assert len({new_run_id(time_utc) for _ in range(20)}) > 1


def test_a_rate_is_ranks_times_batch_times_steps_over_time() -> None:
    two = training_result("ddp", 2, block_s=(1.0, 0.5, 0.25))
    assert two.block_rates == [200.0, 400.0, 800.0]  # 2 ranks x 10 samples x 10 steps
    assert loader_result(2, block_s=(1.0, 0.5)).block_rates == [200.0, 400.0]
    assert allreduce_result("torch", 2).block_rates == []


def test_the_name_of_an_engine_includes_its_transport() -> None:
    assert as_it_ran("torch", "hvdtools-mpi", "mpi") == "hvdtools-mpi"
    assert as_it_ran("torch", "hvdtools-mpi", "nccl") == "hvdtools-mpi+nccl"
    assert as_it_ran("torch", "ddp", "gloo") == "ddp-gloo"
    assert as_it_ran("torch", "ddp", "nccl") == "ddp-nccl"
    assert as_it_ran("torch", "no_comm", "none") == "no_comm"
    assert as_it_ran("torch", "ddp", None) == "ddp"
    assert as_it_ran("allreduce", "torch", "nccl") == "torch-nccl"
    assert as_it_ran("keras", "mwms", "grpc") == "mwms"
    assert as_it_ran("keras", "mwms", "nccl") == "mwms+nccl"


def test_only_chosen_variables_are_recorded() -> None:
    seen = environment.recorded_environment(
        {"OMP_NUM_THREADS": "1", "NCCL_TOKEN": "x", "HOME": "/h"}
    )
    assert seen == {"OMP_NUM_THREADS": "1"}


def test_errors_do_not_name_the_user_or_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    monkeypatch.setattr("platform.node", lambda: "box-7")
    cleaned = environment.without_names(
        "box-7: /home/jo/train.py failed, /home/joanna did not, box-77"
    )
    assert cleaned == "<host>: ~/train.py failed, /home/joanna did not, box-77"


def test_hardware_names_this_cpu() -> None:
    found = environment.hardware()
    assert found["cores_usable"] and found["cpu"] and float(str(found["memory_gib"])) > 0
