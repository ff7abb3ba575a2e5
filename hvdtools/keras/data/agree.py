"""Did every rank get the same data in the same order? What can be told without reading it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.keras.data.chain import Chain
from hvdtools.tensorflow.collect import gather_object

_LABEL = "hvdtools.shard"


def require_same(described: str, uneven: str) -> None:
    """Raise on every rank if the ranks' data differ in what `described` says of them.

    Raises:
        HvdtoolsError: Names a rank that differs from rank 0.
    """
    everyone = gather_object(f"{described}, uneven={uneven!r}", f"{_LABEL}.data")
    for rank, other in enumerate(everyone):
        if other != everyone[0]:
            raise HvdtoolsError(
                f"The ranks gave shard() different data (rank 0: {everyone[0]}; rank {rank}: "
                f"{other}): it deals out one dataset that is the same on all ranks."
            )


def require_same_order(chain: Chain) -> None:
    """Raise on every rank if the ranks' datasets come in different orders.

    Raises:
        HvdtoolsError: Samples would be repeated and lost; says what to do.
    """
    everyone = gather_object((chain.parts, chain.seeds), f"{_LABEL}.order")
    rank = _first_other([parts for parts, _ in everyone])
    if rank is not None:
        raise HvdtoolsError(
            f"Dataset.shard() splits the data already, and on rank {rank} otherwise than on rank "
            "0: leave it out, shard() splits what is the same on all ranks."
        )
    rank = _first_other([seeds for _, seeds in everyone])
    if rank is not None:
        raise HvdtoolsError(
            f"The dataset is shuffled with other seeds on rank {rank} than on rank 0, so samples "
            "would be repeated and lost: call keras.utils.set_random_seed(n), with one n on all "
            "ranks, before the dataset is made, and let all ranks make it alike."
        )
    if (0, 0) in chain.seeds:
        raise HvdtoolsError(
            "The dataset is shuffled without a seed, so each rank has an order of its own, and "
            "samples would be repeated and lost: use shuffle(..., seed=n), or call "
            "keras.utils.set_random_seed(n) before the dataset is made, with one n on all ranks."
        )
    if not chain.in_order:
        raise HvdtoolsError(
            "The dataset yields elements as they become ready (deterministic=False), so each rank "
            "has an order of its own, and samples would be repeated and lost: use "
            "deterministic=True there and in its options."
        )


def warn_of_shuffling(rank: int) -> None:
    """Tell, on rank 0, if `fit()` would shuffle a PyDataset's batches otherwise on each rank."""
    state = zlib.crc32(repr(random.getstate()).encode())
    everyone = gather_object(state, f"{_LABEL}.shuffling")
    if rank == 0 and _first_other(everyone) is not None:
        logger.warning(
            'shard(uneven="weighted"): fit() shuffles the batches of a PyDataset with Python\'s '
            "random numbers, which differ between ranks here. Its last round is weighed rightly "
            "only in one order on all ranks: call keras.utils.set_random_seed(n) with one n on "
            "all ranks, or fit(shuffle=False)."
        )


def _first_other(everyone: Sequence[object]) -> int | None:
    """The first rank that differs from rank 0."""
    return next((rank for rank, other in enumerate(everyone) if other != everyone[0]), None)
