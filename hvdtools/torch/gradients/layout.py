"""Which parameter lies in which bucket, kept up to date as parameters freeze and thaw."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.gradients.buckets import Bucket, plan_buckets, reduced_dtype


class Layout:
    """The buckets of a model's trainable parameters.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        bucket_bytes: The size at which a bucket is closed.

    Attributes:
        buckets: In the order in which they are sent.
    """

    def __init__(self, named: Sequence[tuple[str, Parameter]], bucket_bytes: float) -> None:
        self.buckets: list[Bucket] = []
        self._named = named
        self._bucket_bytes = bucket_bytes
        self._trainable: tuple[bool, ...] = ()
        self._place: dict[int, int] = {}  # parameter index -> bucket index

    def refresh(self) -> None:
        """Make the buckets, again where parameters were frozen or thawed since."""
        trainable = tuple(parameter.requires_grad for _, parameter in self._named)
        if trainable == self._trainable:
            return
        thawed = [named for named, wanted in zip(self._named, trainable, strict=True) if wanted]
        groups = plan_buckets(thawed, self._bucket_bytes)
        self.buckets = [
            Bucket([parameter for _, parameter in group], reduced_dtype(*group[0]))
            for group in groups
        ]
        bucket_of = {id(p): b for b, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._place = {
            index: bucket_of[id(parameter)]
            for index, (_, parameter) in enumerate(self._named)
            if id(parameter) in bucket_of
        }
        self._trainable = trainable

    def bucket_of(self, index: int) -> int:
        """The bucket of parameter `index`.

        Raises:
            HvdtoolsError: It has none: it was frozen when the pass began.
        """
        if index not in self._place:
            raise HvdtoolsError(
                f"Parameter {self._named[index][0]} was frozen between forward and backward: "
                "change requires_grad before the forward pass."
            )
        return self._place[index]

    def ends_of(self, bucket: int) -> list[str]:
        """The names of the first and the last parameter of a bucket; one if it is the only."""
        places = [index for index, place in self._place.items() if place == bucket]
        return [self._named[index][0] for index in dict.fromkeys((places[-1], places[0]))]

    def holds(self, index: int, sent: int) -> bool:
        """Whether the `.grad` of parameter `index` is a view of one of the first `sent` buckets."""
        place = self._place.get(index, sent)
        gradient = self._named[index][1].grad
        return place < sent and any(gradient is view for view in self.buckets[place].views)
