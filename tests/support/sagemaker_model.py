"""AWS's own model of CreateTrainingJob, and what it says to a request."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator

# Unicode's classes, of which Python's re has none: what it has comes close.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{Alnum}": "a-zA-Z0-9"}


@functools.cache
def shape() -> Any:
    model = botocore.session.get_session().get_service_model("sagemaker")
    return model.operation_model("CreateTrainingJob").input_shape


def at(*path: str) -> Any:
    """The shape at a path: member names, "[]" for an element, "key" and "value" of a map."""
    found = shape()
    for step in path:
        if step == "[]":
            found = found.member
        elif found.type_name == "map":
            found = getattr(found, step)
        else:
            found = found.members[step]
    return found


def problems(request: dict[str, Any]) -> list[str]:
    """What is wrong with a request; empty where it would be accepted."""
    report = ParamValidator().validate(request, shape()).generate_report()
    return [*report.splitlines()] or list(_of_value(request, shape(), "request"))


def _of_value(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Lengths, numbers, patterns and lists of values, most of which botocore leaves to AWS."""
    limits = shape.metadata
    size = value if isinstance(value, int) else len(value)
    if size < limits.get("min", size) or size > limits.get("max", size):
        yield f"{path}: {size} is not from {limits.get('min')} to {limits.get('max')}"
    if isinstance(value, str):
        if value not in limits.get("enum", [value]):
            yield f"{path}: {value!r} is none of the values"
        if not re.fullmatch(translated(limits.get("pattern", r"[\S\s]*")), value):
            yield f"{path}: {value!r} does not match {limits['pattern']}"
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _of_value(each, shape.member, f"{path}[{number}]")
    elif isinstance(value, dict) and shape.type_name == "map":
        for key, each in value.items():
            yield from _of_value(key, shape.key, f"{path} key")
            yield from _of_value(each, shape.value, f"{path}[{key}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _of_value(each, shape.members[key], f"{path}.{key}")


def translated(pattern: str) -> str:
    """A pattern of AWS's in Python's spelling."""
    for theirs, ours in _CLASSES.items():
        pattern = pattern.replace(theirs, ours)
    return pattern
