"""Predictions on the page: measured against predicted, and all that the model rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.predict.alpha_beta import AlphaBeta
from hvdtools.bench.predict.forecast import Forecast
from hvdtools.bench.report import cells
from hvdtools.bench.report.cells import Cell, Column, Grid, Line
from hvdtools.bench.report.figures import Figure, legend
from hvdtools.bench.report.forecast_plot import measured_against_predicted
from hvdtools.bench.report.sections import Section
from hvdtools.bench.report.words import percent, rate_in_words, seconds_in_words


@dataclass(frozen=True)
class ForecastSection:
    """What is predicted of one work."""

    title: str
    scaling: str
    legend: list[tuple[str, str]]
    figure: Figure
    predictions: Grid
    held_out: Grid
    rests_on: Grid
    notes: tuple[str, ...]


def forecast_section(measured: Section, forecasts: Sequence[Forecast]) -> ForecastSection:
    """The forecasts of the work that a section shows, an engine each."""
    notes = [(each.engine, note) for each in forecasts for note in _notes(each)]
    everyone = dict.fromkeys(note for _, note in notes)
    return ForecastSection(
        title=measured.title,
        scaling=measured.scaling,
        legend=legend([each.engine for each in forecasts]),
        figure=Figure(
            "Measured against predicted",
            measured_against_predicted(f"forecast-{measured.name}", measured.rows, forecasts),
            "Marks are measured, with 95\u00a0% intervals; lines and their bands are predicted; "
            "crosses are predicted for a measured training that the model was not shown. The "
            "dashed line is the ideal.",
        ),
        predictions=_predictions(forecasts),
        held_out=_held_out(forecasts),
        rests_on=_rests_on(forecasts),
        notes=tuple(_of_whom(note, notes, len(forecasts)) for note in everyone),
    )


def _notes(forecast: Forecast) -> list[str]:
    given = []
    if forecast.network is not None:
        given.append(f"The network is {forecast.network.said}, as given by the user.")
    return [*given, *filter(None, (forecast.not_held_out,)), *forecast.notes]


def _of_whom(note: str, notes: Sequence[tuple[str, str]], engines: int) -> str:
    whose = [engine for engine, said in notes if said == note]
    return note if len(whose) == engines else f"{', '.join(whose)}: {note}"


def _predictions(forecasts: Sequence[Forecast]) -> Grid:
    columns = (
        Column("engine", of_words=True),
        Column("ranks"),
        Column("nodes"),
        Column("step [95\u00a0%]"),
        Column("samples/s [95\u00a0%]"),
        Column("efficiency [95\u00a0%]"),
        Column("compute"),
        Column("communi\u00adcation"),
        Column("of it hidden"),
        Column("of it exposed"),
    )
    lines = tuple(
        Line(
            (
                cells.words(forecast.engine),
                cells.number(each.ranks),
                cells.number(each.nodes),
                cells.spanned(each.step_s, seconds_in_words),
                cells.rate(each.samples_per_s),
                cells.share(each.efficiency),
                cells.number(each.parts.compute_s, seconds_in_words),
                cells.number(each.parts.communication_s, seconds_in_words),
                cells.number(each.parts.hidden_s, seconds_in_words),
                cells.number(each.parts.exposed_s, seconds_in_words),
            )
        )
        for forecast in forecasts
        for each in forecast.predictions
    )
    return Grid(columns, lines, "Predicted")


def _held_out(forecasts: Sequence[Forecast]) -> Grid:
    columns = (
        Column("engine", of_words=True),
        Column("ranks"),
        Column("nodes"),
        Column("predicted step"),
        Column("measured step"),
        Column("error"),
    )
    lines = tuple(
        Line(
            (
                cells.words(forecast.engine),
                cells.number(each.ranks),
                cells.number(each.nodes),
                cells.number(each.predicted_s, seconds_in_words),
                cells.number(each.measured_s, seconds_in_words),
                Cell(f"{100 * each.error:+.1f}\u00a0%".replace("-", "−"), each.error),
            )
        )
        for forecast in forecasts
        for each in forecast.held_out
    )
    return Grid(columns, lines, "The model’s error on measured trainings that it was not shown")


def _rests_on(forecasts: Sequence[Forecast]) -> Grid:
    """The numbers of the network and where they are from."""
    columns = (
        Column("engine", of_words=True),
        Column("all-reduce", of_words=True),
        Column("from", of_words=True),
        Column("constant"),
        Column("latency a\u00a0step, α"),
        Column("bandwidth GB/s, 1/β"),
        Column("fit’s median error"),
        Column("overlap with backward"),
    )
    lines = [
        Line((cells.words(forecast.engine), cells.words(where), *_cost(cost, forecast)))
        for forecast in forecasts
        for where, cost in (
            ("within a node", forecast.cost_in_node),
            ("between nodes", forecast.cost_between_nodes),
        )
        if cost is not None
    ]
    caption = "What it rests on: constant + 2 (N − 1) α + 2 (N − 1) ÷ N × bytes × β for N ranks"
    return Grid(columns, tuple(lines), caption)


def _cost(cost: AlphaBeta, forecast: Forecast) -> tuple[Cell, ...]:
    given = cost.fit_error is None
    source = f"given: {forecast.network.said}" if given and forecast.network else "measured"
    least = "at least " if forecast.overlap_is_least else ""
    return (
        cells.words(source),
        cells.number(cost.constant_s, seconds_in_words),
        cells.number(cost.alpha_s, seconds_in_words),
        cells.number(cost.bytes_per_s, lambda rate: rate_in_words(rate / 1e9))
        if math.isfinite(cost.bytes_per_s)
        else Cell("no limit seen", None),
        cells.number(cost.fit_error, percent),
        Cell(f"{least}{percent(forecast.overlap, 0)}", forecast.overlap),
    )
