"""Round-robin sharding: the positions of one rank in an order that all ranks share."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError, unknown_name

UNEVEN = ("drop", "pad", "ragged", "weighted")


@dataclass(frozen=True)
class Sharding:
    """Samples are assigned in rounds: in each round every rank gets one, in rank order.

    The ranks' k-th batches together are then the k-th batch of one process
    with a batch `size` times as large. Only the last round can be incomplete;
    `uneven` determines what happens to it.

    Attributes:
        rank, size: As in `Topology`.
        uneven: One of UNEVEN, as in `shard()`.
        batch: Positions in one batch of this rank: the loader's batch size, or
            1 where whole batches are assigned.
    """

    rank: int
    size: int
    uneven: str
    batch: int

    def __post_init__(self) -> None:
        if self.uneven not in UNEVEN:
            raise unknown_name("uneven mode", self.uneven, UNEVEN)

    def positions(self, total: int) -> range:
        """This rank's positions in an order of length `total`, nothing repeated."""
        even = total - total % self.size
        return range(self.rank, even if self.uneven == "drop" else total, self.size)

    def padding(self, total: int) -> int | None:
        """The position that "pad" repeats on this rank to complete the last round."""
        if self.uneven != "pad" or not self._misses_last_round(total):
            return None
        even = total - total % self.size
        return (even + self.rank) % total

    def needs_filler_batch(self, total: int) -> bool:
        """True if "weighted" gives this rank a batch of weight 0, as others have one more."""
        return (
            self.uneven == "weighted"
            and self._misses_last_round(total)
            and len(self.positions(total)) % self.batch == 0
        )

    def length(self, total: int) -> int:
        """This rank's number of positions, repetitions and a filler batch included."""
        own = len(self.positions(total))
        if self.needs_filler_batch(total):
            return own + min(self.batch, max(own, 1))
        return own + (self.padding(total) is not None)

    def require_enough(self, total: int, noun: str) -> None:
        """Raise if "drop" would leave everything out.

        Raises:
            HvdtoolsError: `total` is below the number of ranks.
        """
        if self.uneven == "drop" and total < self.size:
            raise HvdtoolsError(
                f"There are {total} {noun} for {self.size} ranks, and all would be left out "
                '(uneven="drop", or incomplete batches are left out): start fewer ranks, bring '
                'more data, or keep incomplete batches and use uneven="weighted" or "pad".'
            )

    def _misses_last_round(self, total: int) -> bool:
        """True if the last round is incomplete and ends before this rank."""
        return 0 < total % self.size <= self.rank
