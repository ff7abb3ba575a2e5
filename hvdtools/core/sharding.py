"""Which samples of an order that all ranks share are this rank's? The arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError, unknown_name

UNEVEN = ("drop", "pad", "ragged", "weighted")


@dataclass(frozen=True)
class Deal:
    """Samples are dealt like cards: in each round every rank gets one, in rank order.

    The ranks' k-th batches together are then the k-th batch of one process
    whose batch is size times as large. Only the last round can be incomplete,
    and `uneven` says what becomes of it.

    Attributes:
        rank, size: This process' place in the job.
        uneven: One of UNEVEN, as in `shard()`.
        batch: What this rank gets for one of its batches: the loader's
            batch size, or 1 where whole batches are dealt.
    """

    rank: int
    size: int
    uneven: str
    batch: int

    def __post_init__(self) -> None:
        if self.uneven not in UNEVEN:
            raise unknown_name("uneven mode", self.uneven, UNEVEN)

    def own(self, whole: int) -> range:
        """This rank's positions in an order of length `whole`, nothing repeated."""
        even = whole - whole % self.size
        return range(self.rank, even if self.uneven == "drop" else whole, self.size)

    def padding(self, whole: int) -> int | None:
        """The position that "pad" repeats on this rank to complete the last round."""
        if self.uneven != "pad" or not self._left_out(whole):
            return None
        even = whole - whole % self.size
        return (even + self.rank) % whole

    def lacks_batch(self, whole: int) -> bool:
        """True if the last round gives others one batch more, and "weighted" must stand in."""
        return (
            self.uneven == "weighted"
            and self._left_out(whole)
            and len(self.own(whole)) % self.batch == 0
        )

    def length(self, whole: int) -> int:
        """How much this rank takes, repetitions and a stand-in batch counted."""
        own = len(self.own(whole))
        if self.lacks_batch(whole):
            return own + min(self.batch, max(own, 1))
        return own + (self.padding(whole) is not None)

    def require_enough(self, whole: int, noun: str) -> None:
        """Raise if "drop" would leave everything out.

        Raises:
            HvdtoolsError: `whole` is below the number of ranks.
        """
        if self.uneven == "drop" and whole < self.size:
            raise HvdtoolsError(
                f"There are {whole} {noun} for {self.size} ranks, and all would be left out "
                '(uneven="drop", or incomplete batches are left out): start fewer ranks, bring '
                'more data, or keep incomplete batches and use uneven="weighted" or "pad".'
            )

    def _left_out(self, whole: int) -> bool:
        """True if the last round is incomplete and ends before this rank."""
        return 0 < whole % self.size <= self.rank
