"""Numbers and lists as text."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.core.text import count_noun

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_list(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def format_size(ranks: int, nodes: int) -> str:
    """ "2 ranks", "16 ranks on 2 nodes"."""
    return count_noun(ranks, "rank") + (f" on {nodes} nodes" if nodes > 1 else "")


def format_bytes(count: float) -> str:
    """ "1 KiB", "2.5 GiB": at most three digits, in powers of 1024."""
    size, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.3g}\u00a0{unit}" if size < 1000 else f"{size:,.0f}\u00a0{unit}"


def format_seconds(seconds: float) -> str:
    """ "12.3 µs", "4.56 ms", "1.20 s": three digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{format_number(seconds / scale)}\u00a0{unit}"
    return f"{format_number(seconds / 1e-6)}\u00a0µs"


def format_number(value: float) -> str:
    """ "12,345", "98.7", "1.23": three digits, or all those before the decimal point."""
    size = abs(value)
    if 0 < size < 0.9995:
        return f"{value:.3g}"
    return f"{value:,.{0 if size >= 99.95 or size == 0 else 1 if size >= 9.995 else 2}f}"


def format_percent(share: float, digits: int = 1) -> str:
    """ "97.1 %", "−0.4 %" of a share of 1."""
    return f"{100 * share:,.{digits}f}\u00a0%".replace("-", "−")


def format_signed_percent(share: float) -> str:
    """ "+3.1 %", "−0.4 %" of a share of 1."""
    return f"{100 * share:+.1f}\u00a0%".replace("-", "−")


def format_half_width(share: float) -> str:
    """ "±3.1 %"; an interval wider than its value is only "±>100 %"."""
    return f"±{format_percent(share)}" if share < 1 else "±>100\u00a0%"
