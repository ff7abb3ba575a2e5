"""What a suite may tell a program: each family's options, their kinds and known values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hvdtools.bench.suite.toml_checks import check_kind
from hvdtools.core.errors import HvdtoolsError, unknown_name

_INTERLEAVE: dict[str, type] = {
    "interval": float,
    "limit_s": float,
    "min_blocks": int,
    "max_blocks": int,
    "warmup_blocks": int,
}
_TRAINING: dict[str, type] = {
    "model": str,
    "data": str,
    "batch_size": int,
    "precision": str,
    "lr": float,
    "seed": int,
    "steps": int,
    "epochs": int,
    "warmup_epochs": int,
    **_INTERLEAVE,
}
# Options of the programs themselves, held equal by a test.
OPTIONS: dict[str, dict[str, type]] = {
    "torch": {**_TRAINING, "workers": int},
    "keras": _TRAINING,
    "allreduce": {"sizes": str, "dtype": str, "tensors": str, **_INTERLEAVE},
    "input": {
        "model": str,
        "data": str,
        "batch_size": int,
        "workers": int,
        "steps": int,
        **_INTERLEAVE,
    },
}
# The programs' own, held equal by a test; a program reads its names when it starts, in each rank.
MODELS: dict[str, tuple[str, ...]] = {
    "torch": ("cnn", "mlp", "gpt-mini", "resnet50", "vgg16", "gpt-124m", "gpt-350m"),
    "keras": ("cnn", "resnet50", "vgg16", "gpt-mini", "gpt-124m", "gpt-350m"),
    "input": ("cnn", "mlp", "gpt-mini", "resnet50", "vgg16", "gpt-124m", "gpt-350m"),
}
_NAMED_DATA = ("digits", "synthetic")


def check_options(options: dict[str, Any], known: dict[str, type], file: Path) -> None:
    """Check the [program.options] of a suite.

    Raises:
        HvdtoolsError: An option or a value is unknown, or does not fit the others.
    """
    where = f"[program.options] in {file}"
    for name, value in options.items():
        if name not in known:
            raise unknown_name(f"option of {where}", name, tuple(known))
        check_kind(name, value, known[name], where)
    for name in ("batch_size", "steps", "epochs", "min_blocks", "max_blocks"):
        if options.get(name, 1) < 1:
            raise HvdtoolsError(f"{where} has {name} = {options[name]}: give at least 1.")
    if not 0 <= options.get("warmup_epochs", 0) < options.get("epochs", 1):
        raise HvdtoolsError(
            f"{where} has warmup_epochs = {options['warmup_epochs']} of epochs = "
            f"{options.get('epochs', 0)}, which leaves none to count: give more epochs."
        )
    both = sorted({"epochs", "steps"} & options.keys())
    if len(both) == 2:
        raise HvdtoolsError(f"{where} has epochs and steps: a block is an epoch, or so many steps.")


def check_names(family: str, options: dict[str, Any]) -> None:
    """Check the model and the data of a shipped program.

    Raises:
        HvdtoolsError: Either is unknown.
    """
    model, data = options.get("model"), options.get("data")
    if model is not None and model not in MODELS[family]:
        raise unknown_name("model", model, MODELS[family])
    if data is not None and data not in _NAMED_DATA and not Path(data).exists():
        raise unknown_name("data", data, (*_NAMED_DATA, "the path of a folder or file"))
