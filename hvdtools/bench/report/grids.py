"""The report's tables of trainings and loaders, the same for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.bench.analysis.loaders import LoaderRow
from hvdtools.bench.analysis.split import Skew, Split
from hvdtools.bench.analysis.stats import Row
from hvdtools.bench.report import cells
from hvdtools.bench.report.cells import EMPTY, Cell, Column, Grid, Line
from hvdtools.bench.report.words import bytes_in_words, percent
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.words import counted

FAILED = Cell("failed", None, alarm=True)
_NAMED = 5  # the columns that are there even if all of a run failed


def training_grid(rows: Sequence[Row]) -> Grid:
    """The rows of one work."""
    baseline = FAMILIES[rows[0].workload.family].baseline_name
    columns = (
        Column("engine", of_words=True, short="engine"),
        Column("ranks", short="ranks"),
        Column("nodes", short="nodes"),
        Column("samples/s [95\u00a0%]", short="sam- ples/s"),
        Column("efficiency [95\u00a0%]", short="effi- ciency"),
        Column("node efficiency [95\u00a0%]", short="node eff."),
        Column(f"against {baseline} [95\u00a0%]", short=f"against {baseline}"),
        Column("input wait", short="input wait"),
        Column("communi\u00adcation", short="comm."),
        Column("skew (slowest rank)"),
        Column("peak memory a\u00a0rank"),
        Column("test accuracy", short="accu- racy"),
        Column("replicas in\u00a0sync", of_words=True, short="in sync"),
    )
    lines = tuple(Line(_training(row), failed=row.samples_per_s is None) for row in rows)
    return Grid(columns, lines).without_empty_columns(_NAMED)


def _training(row: Row) -> tuple[Cell, ...]:
    return (
        cells.words(row.engine),
        cells.number(row.ranks),
        cells.number(row.nodes),
        FAILED if row.samples_per_s is None else cells.rate(row.samples_per_s),
        cells.share(row.efficiency) if row.ranks > 1 else EMPTY,
        cells.share(row.node_efficiency),
        cells.ratio(row.vs_baseline),
        cells.number(row.input_share, percent),
        cells.number(communication_share(row.split), percent),
        _skew(row.skew),
        cells.number(row.peak_memory_bytes, bytes_in_words),
        cells.number(row.accuracy, percent),
        _synced(row.in_sync),
    )


def communication_share(split: Split | None) -> float | None:
    """What communication that is not hidden takes of a step; None where it was not told apart."""
    if split is None or split.communication_s is None:
        return None
    return split.communication_s / split.step_s


def _skew(skew: Skew | None) -> Cell:
    if skew is None:
        return EMPTY
    return Cell(f"+{percent(skew.over_median)}", skew.over_median, f"rank {skew.rank}")


def _synced(in_sync: bool | None) -> Cell:
    if in_sync is None:
        return EMPTY
    return cells.words("yes") if in_sync else Cell("NO", "NO", alarm=True)


def loader_grid(rows: Sequence[LoaderRow]) -> Grid:
    """Every loader of a run."""
    columns = (
        Column("data", of_words=True, short="data"),
        Column("ranks", short="ranks"),
        Column("nodes", short="nodes"),
        Column("samples/s [95\u00a0%]", short="sam- ples/s"),
        Column("batch a\u00a0rank", short="batch a\u00a0rank"),
        Column("workers a\u00a0rank", short="workers a\u00a0rank"),
        Column("options", of_words=True),
    )
    lines = tuple(Line(_loader(row), failed=row.samples_per_s is None) for row in rows)
    return Grid(columns, lines).without_empty_columns(4)


def _loader(row: LoaderRow) -> tuple[Cell, ...]:
    shown = ("workers", "batch_size")  # in columns of their own
    options = ", ".join(
        f"{name} {value}" for name, value in row.workload.options if name not in shown
    )
    return (
        cells.words(row.workload.data or row.workload.program),
        cells.number(row.ranks),
        cells.number(row.nodes),
        FAILED if row.samples_per_s is None else cells.rate(row.samples_per_s),
        cells.number(row.batch_per_rank),
        cells.number(row.workers),
        cells.words(options) if options else EMPTY,
    )


def size_words(ranks: int, nodes: int) -> str:
    """ "2 ranks", "16 ranks on 2 nodes"."""
    return counted(ranks, "rank") + (f" on {nodes} nodes" if nodes > 1 else "")


def failures(named: Sequence[tuple[str, int, int, Sequence[str]]]) -> list[str]:
    """A line for each reason that cases failed for: of (engine, ranks, nodes, reasons)."""
    lines = []
    for engine, ranks, nodes, reasons in named:
        for why in dict.fromkeys(reasons):
            times = sum(reason == why for reason in reasons)
            often = f" ({times} times)" if times > 1 else ""
            lines.append(f"{engine}, {size_words(ranks, nodes)}{often}: {why}")
    return lines
