"""torch.compile in regions, so that gradients are still sent while backward runs.

A model that is compiled as a whole has one backward function, and autograd sees
every gradient at its end: nothing is sent before. Compiled in regions no larger
than a bucket, each region hands over its gradients when it is done. It is what
PyTorch's own tutorial calls regional compilation, and compiles faster, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch.nn import Module, ModuleDict, ModuleList

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger

ModuleT = TypeVar("ModuleT", bound=Module)


def compile(model: ModuleT, *, region_mib: float = 25.0, **options: Any) -> ModuleT:
    """Compile a model in place, in regions, so that communication overlaps with backward.

    A region is a submodule with at most `region_mib` of trainable parameters,
    as large as possible; a single layer above it is a region, too. A model of at
    most that size is compiled as a whole. Code between the regions runs uncompiled.

    Args:
        model: Prepared or not. Its class, parameters and state_dict stay.
        region_mib: As `bucket_mib` of `prepare()`.
        options: Those of `torch.compile`: backend, mode, dynamic, fullgraph.

    Returns:
        The same model.

    Raises:
        HvdtoolsError: `region_mib` is not above 0.
    """
    if not region_mib > 0:
        raise HvdtoolsError(f"compile(region_mib={region_mib!r}) must be above 0.")
    regions = list(_regions(model, region_mib * 2**20))
    for region in regions:
        region.compile(**options)
    how = "as a whole" if regions == [model] else f"in {len(regions)} regions"
    logger.info(f"torch.compile {how} (at most {region_mib:g} MiB of parameters each)")
    return model


def _regions(module: Module, most_bytes: float) -> Iterator[Module]:
    callable_itself = not isinstance(module, ModuleList | ModuleDict)
    children = list(module.children())
    if callable_itself and (_trainable_bytes(module) <= most_bytes or not children):
        if any(True for _ in module.parameters()):
            yield module
        return
    for child in children:
        yield from _regions(child, most_bytes)


def _trainable_bytes(module: Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
