"""Numbers in words that people read: for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"
_ANY = 1.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def bytes_in_words(count: float) -> str:
    """ "1 KiB", "2.5 GiB": three digits at most, in powers of 1024."""
    size, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.3g}\u00a0{unit}" if size < 1000 else f"{size:,.0f}\u00a0{unit}"


def seconds_in_words(seconds: float) -> str:
    """ "12.3 µs", "4.56 ms", "1.20 s": three digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{_three_digits(seconds / scale)}\u00a0{unit}"
    return f"{_three_digits(seconds / 1e-6)}\u00a0µs"


def rate_in_words(rate: float) -> str:
    """ "12,345", "98.7", "1.23": three digits, or all before the point."""
    return _three_digits(rate)


def percent(share: float, digits: int = 1) -> str:
    """ "97.1 %", "−0.4 %"."""
    return f"{100 * share:,.{digits}f}\u00a0%".replace("-", "−")


def plus_minus(share: float) -> str:
    """ "±3.1 %"; of what is no interval any more, only that."""
    return f"±{percent(share)}" if share < _ANY else "±>100\u00a0%"


def _three_digits(value: float) -> str:
    size = abs(value)
    if 0 < size < 0.9995:
        return f"{value:.3g}"
    return f"{value:,.{0 if size >= 99.95 or size == 0 else 1 if size >= 9.995 else 2}f}"
