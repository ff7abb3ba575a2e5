"""Results, suites and options of 0.1 are accepted; a file is migrated as a whole or not at all."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from paths import GOLDEN
from typer.testing import CliRunner

import hvdtools.bench
from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.predict.engine_prediction import PredictionRequest
from hvdtools.bench.predict.run_prediction import predict_run
from hvdtools.bench.report.csv_files import to_csv
from hvdtools.bench.report.page import page_of
from hvdtools.bench.results.migration import SCHEMA_VERSION
from hvdtools.bench.results.result_file import FILE_NAME, append, migrate_file, read
from hvdtools.bench.suite.suite_file import load
from hvdtools.cli import app
from hvdtools.core.errors import HvdtoolsError

SCHEMA: dict[str, Any] = json.loads(
    (Path(hvdtools.bench.__file__).parent / "results" / "results.schema.json").read_text()
)
# Written by the hvdtools of that version: Gloo, MPI, DDP, TensorFlow; version 3 has a failure, an
# all-reduce that Horovod does not support, an input pipeline and interleaved engines as well.
SAMPLES = {version: GOLDEN / f"results-{version}.jsonl" for version in (1, 2, 3)}


@pytest.mark.parametrize("version", SAMPLES)
def test_a_file_of_every_version_is_read_shown_and_rewritten(version: int, tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(SAMPLES[version].read_bytes())
    old = [json.loads(line) for line in file.read_text().splitlines()]
    assert {table["schema_version"] for table in old} == {version}
    found = read(file).results
    assert [(r.run_id, r.ranks, r.error) for r in found] == [
        (table["run_id"], table["ranks"], table["error"]) for table in old
    ]
    for result in found:
        jsonschema.validate(json.loads(result.to_json()), SCHEMA)
    assert "<table" in page_of(analyze(found))
    training = to_csv(analyze(found), "training")
    assert "vs_baseline" in training.splitlines()[0]

    migrate_file(file)
    assert read(file).results == found
    rewritten = file.read_bytes()
    assert rewritten.count(b'"schema_version": %d' % SCHEMA_VERSION) == len(old)
    migrate_file(file)
    assert file.read_bytes() == rewritten


@pytest.mark.parametrize("version", (1, 2))
def test_the_numbers_of_early_versions(version: int) -> None:
    tables = [json.loads(line) for line in SAMPLES[version].read_text().splitlines()]
    results = read(SAMPLES[version]).results
    engines = {
        "horovod-mpi": "horovod-mpi",
        "horovod-gloo": "horovod-gloo",
        "ddp-gloo": "ddp",
        "keras-horovod-mpi": "horovod-mpi",
        "keras-horovod-gloo": "horovod-gloo",
        "keras-mwms": "mwms",
    }
    for table, result in zip(tables, results, strict=True):
        assert result.engine == engines[table["engine"]] and result.nodes == 1
        assert result.family == table.get("framework", "torch")
        assert result.training is not None and result.training.transport == table["moved_by"]
        assert result.training.accuracy == table["accuracy"]
        assert statistics.median(result.block_rates) == pytest.approx(table["samples_per_s"])
        assert result.training.gradient_bytes is None
    prediction = predict_run(analyze(results), PredictionRequest(ranks=(8,)))
    assert not prediction.engines and prediction.missing


def test_version_3_has_the_same_values_under_other_names() -> None:
    tables = [json.loads(line) for line in SAMPLES[3].read_text().splitlines()]
    for table, result in zip(tables, read(SAMPLES[3]).results, strict=True):
        renamed = [{"none": "no_comm"}.get(name, name) for name in table["side_by_side"]]
        assert list(result.interleaved) == renamed and result.repeat == table["round"]
        assert " --with " not in result.command and "none" not in result.command
        old = table["measured"]
        if result.training is not None:
            assert result.training.transport == old["moved_by"]
            assert result.training.allreduces_per_step == old["messages"]
            assert list(result.training.block_s) == old["block_s"]
        if result.allreduce is not None:
            reasons = [point.unsupported for point in result.allreduce.points]
            assert reasons == [point["refused"] for point in old["points"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"schema_version": 99}', "schema version 99, and this version of hvdtools reads 1 to 4"),
        ('{"schema_version": 2}', "schema version 2 has missing or unknown fields"),
        ("[]", "schema version None"),
    ],
)
def test_what_cannot_be_migrated_is_left_unchanged(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(SAMPLES[3].read_bytes() + line.encode() + b"\n")
    before = file.read_bytes()
    with pytest.raises(HvdtoolsError, match=message):
        migrate_file(file)
    with pytest.raises(HvdtoolsError, match=message):
        read(file)
    assert file.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_an_old_file_can_be_added_to(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(SAMPLES[3].read_bytes() + b'{"cut')
    results = read(file).results
    migrate_file(file)
    append(file, results[0])
    reading = read(file)
    assert reading.results == (*results, results[0]) and reading.incomplete_lines == 0


def test_old_names_in_a_suite_work_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = load("demo")
    text = (Path(hvdtools.bench.__file__).parent / "programs/suites/demo.toml").read_text()
    old_names = {"repeats": "rounds", "interleaved": "side_by_side", "no_comm": "none"}
    for now, before in old_names.items():
        assert now in text
        text = text.replace(now, before)
    file = tmp_path / "demo.toml"
    file.write_text(text)
    assert load(str(file)).digest == new.digest
    warnings = capsys.readouterr().err
    assert "the key in " in warnings and " rounds is now called repeats; " in warnings
    assert "side_by_side is now called interleaved" in warnings
    assert "the engine none is now called no_comm" in warnings


def test_old_options_work_with_a_warning() -> None:
    runner = CliRunner()
    arguments = ["bench", "run", "demo", "--dry-run"]
    new = runner.invoke(app, [*arguments, "--repeats", "2"])
    old = runner.invoke(app, [*arguments, "--rounds", "2"])
    assert old.exit_code == new.exit_code == 0 and old.stdout == new.stdout
    assert "the option --rounds is now called --repeats" in old.stderr and not new.stderr
    assert "--rounds" not in runner.invoke(app, ["bench", "run", "--help"]).stdout
