"""The flags of `hvdtools launch`, made from the table of options.

typer reads a command's flags from the signature of its function. Schedulers bring options of
their own, those of a site among them, so the signature is made when the command is loaded.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from hvdtools.launch.scheduler import Option


def with_flags(
    options: Mapping[str, Option], old_names: Mapping[str, str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: replaces `**flags` in a function's signature by a flag for each option.

    Args:
        options: Name -> option.
        old_names: Hidden flags that are still understood, as keys.
    """
    flags = [_flag(option) for option in options.values()]
    hidden = typer.Option
    flags += [
        _parameter(field_of(old), Annotated[str | None, hidden(f"--{old}", hidden=True)], None)
        for old in old_names
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters = [*own, *flags]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        return function

    return decorate


def given(flags: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """Option name -> value of the flags that were given."""
    found = {}
    for name, option in options.items():
        value = flags[field_of(name)]
        # Not `in (None, False)`: to Python 0 is False, and -n 0 was given.
        if not (value is None or value is False or value == []):
            found[name] = tuple(value) if option.kind is tuple else value
    return found


def field_of(name: str) -> str:
    """The name of an option as a parameter; Python has its own meaning for some words."""
    field = name.replace("-", "_")
    return f"{field}_" if keyword.iskeyword(field) else field


def _flag(option: Option) -> inspect.Parameter:
    is_list, is_bool = option.kind is tuple, option.kind is bool
    kind: Any = list[str] if is_list else option.kind
    info = typer.Option(
        *(f"--{option.name}", *option.flags),
        metavar=option.metavar or None,
        help=option.help,
        show_default=False,
        rich_help_panel=option.panel,
    )
    default = False if is_bool else None
    return _parameter(
        field_of(option.name), Annotated[kind if is_bool else kind | None, info], default
    )


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
