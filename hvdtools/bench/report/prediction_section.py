"""The predictions on the page: measured against predicted, and what they are based on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.formatting import (
    format_number,
    format_percent,
    format_seconds,
    format_signed_percent,
)
from hvdtools.bench.predict.alpha_beta import AlphaBeta
from hvdtools.bench.predict.engine_prediction import EnginePrediction, SizePrediction
from hvdtools.bench.predict.holdout import HoldOut
from hvdtools.bench.predict.model import Overlap
from hvdtools.bench.report.panels import Figure, legend
from hvdtools.bench.report.plots import predicted_efficiency
from hvdtools.bench.report.sections import Section
from hvdtools.bench.report.table import (
    Cell,
    Column,
    Table,
    make_table,
    number,
    rate,
    share,
    text,
    with_interval,
)


@dataclass(frozen=True)
class PredictionSection:
    """The predictions of one workload."""

    title: str
    scaling: str
    legend: list[tuple[str, str]]
    figure: Figure
    sizes: Table
    hold_outs: Table
    costs: Table
    notes: tuple[str, ...]


def prediction_section(
    measured: Section, predictions: Sequence[EnginePrediction]
) -> PredictionSection:
    """The predictions of a section's workload, for each engine."""
    return PredictionSection(
        title=measured.title,
        scaling=measured.scaling,
        legend=legend([each.engine for each in predictions]),
        figure=Figure(
            "Measured against predicted",
            predicted_efficiency(f"forecast-{measured.name}", measured.rows, predictions),
            "Marks are measured, with 95\u00a0% intervals; lines and their bands are predicted; "
            "crosses are predictions of a measured training that was held out. The dashed line is "
            "the ideal.",
        ),
        sizes=_sizes(predictions),
        hold_outs=_hold_outs(predictions),
        costs=_costs(predictions),
        notes=_notes(predictions),
    )


def _notes(predictions: Sequence[EnginePrediction]) -> tuple[str, ...]:
    """Each note once, with the engines it is about unless it is about all."""
    engines: dict[str, list[str]] = {}
    for each in predictions:
        notes = (
            [f"The network is {each.network.text}, as given by the user."] if each.network else []
        )
        for note in (*notes, *filter(None, (each.not_held_out, *each.notes))):
            engines.setdefault(note, []).append(each.engine)
    return tuple(
        note if len(names) == len(predictions) else f"{', '.join(names)}: {note}"
        for note, names in engines.items()
    )


def _sizes(predictions: Sequence[EnginePrediction]) -> Table:
    columns: tuple[Column[tuple[str, SizePrediction]], ...] = (
        Column("engine", lambda item: text(item[0]), is_text=True),
        Column("ranks", lambda item: number(item[1].ranks)),
        Column("nodes", lambda item: number(item[1].nodes)),
        Column("step [95\u00a0%]", lambda item: with_interval(item[1].step_s, format_seconds)),
        Column("samples/s [95\u00a0%]", lambda item: rate(item[1].samples_per_s)),
        Column("efficiency [95\u00a0%]", lambda item: share(item[1].efficiency)),
        Column("compute", lambda item: number(item[1].parts.compute_s, format_seconds)),
        Column(
            "communi\u00adcation",
            lambda item: number(item[1].parts.communication_s, format_seconds),
        ),
        Column("of it hidden", lambda item: number(item[1].parts.hidden_s, format_seconds)),
        Column("of it exposed", lambda item: number(item[1].parts.exposed_s, format_seconds)),
    )
    items = [(each.engine, size) for each in predictions for size in each.sizes]
    return make_table(columns, items, "Predicted")


def _hold_outs(predictions: Sequence[EnginePrediction]) -> Table:
    columns: tuple[Column[tuple[str, HoldOut]], ...] = (
        Column("engine", lambda item: text(item[0]), is_text=True),
        Column("ranks", lambda item: number(item[1].ranks)),
        Column("nodes", lambda item: number(item[1].nodes)),
        Column("predicted step", lambda item: number(item[1].predicted_s, format_seconds)),
        Column("measured step", lambda item: number(item[1].measured_s, format_seconds)),
        Column("error", lambda item: number(item[1].error, format_signed_percent)),
    )
    items = [(each.engine, hold_out) for each in predictions for hold_out in each.hold_outs]
    return make_table(columns, items, "Error on measured trainings that were held out")


def _costs(predictions: Sequence[EnginePrediction]) -> Table:
    """The costs of an all-reduce, and where they come from."""
    columns: tuple[Column[tuple[EnginePrediction, str, AlphaBeta]], ...] = (
        Column("engine", lambda item: text(item[0].engine), is_text=True),
        Column("all-reduce", lambda item: text(item[1]), is_text=True),
        Column("from", lambda item: _source(item[0], item[2]), is_text=True),
        Column("constant", lambda item: number(item[2].constant_s, format_seconds)),
        Column("latency a\u00a0step, α", lambda item: number(item[2].alpha_s, format_seconds)),
        Column("bandwidth GB/s, 1/β", lambda item: _bandwidth(item[2])),
        Column("fit’s median error", lambda item: number(item[2].fit_error, format_percent)),
        Column("overlap with backward", lambda item: _overlap(item[0].model.overlap)),
    )
    items = [
        (each, where, cost)
        for each in predictions
        for where, cost in (
            ("within a node", each.model.in_node),
            ("between nodes", each.model.between_nodes),
        )
        if cost is not None
    ]
    caption = "Based on: constant + 2 (N − 1) α + 2 (N − 1) ÷ N × bytes × β for N ranks"
    return make_table(columns, items, caption)


def _source(prediction: EnginePrediction, cost: AlphaBeta) -> Cell:
    if cost.fit_error is None and prediction.network is not None:
        return text(f"given: {prediction.network.text}")
    return text("measured")


def _bandwidth(cost: AlphaBeta) -> Cell:
    if math.isinf(cost.bytes_per_s):
        return Cell("no limit seen", None)
    return number(cost.bytes_per_s, lambda value: format_number(value / 1e9))


def _overlap(overlap: Overlap) -> Cell:
    least = "at least " if overlap.is_lower_bound else ""
    return Cell(f"{least}{format_percent(overlap.share, 0)}", overlap.share)
