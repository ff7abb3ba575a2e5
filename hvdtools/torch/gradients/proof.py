"""The proof that goes along with every run: replicas are equal, gradients are finite."""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import torch
from torch import Tensor
from torch.nn import Parameter

from hvdtools.errors import HvdtoolsError
from hvdtools.torch.checksum import PARTED_REMEDY, Comparison, checksums, in_words
from hvdtools.torch.gradients.buckets import Bucket
from hvdtools.torch.gradients.signals import NONFINITE, Heard
from hvdtools.torch.log import logger
from hvdtools.torch.waiting import waiting

_FIRST_STEPS = 3


class Proof:
    """Compares one model's weights and averaged gradients over ranks, in some steps.

    In a step that is due, before a bucket leaves its gradients are looked at
    for NaN and infinity; after the last, the checksums of the weights and of
    the averages start on their way, and are read when the next step begins.

    Args:
        named: (name, parameter) of every parameter of the model.
        label: Names the messages; the same on every rank.
        every: Steps between two proofs; the first three always, none if 0.
    """

    def __init__(self, named: Sequence[tuple[str, Parameter]], *, label: str, every: int) -> None:
        self._named = named
        self._label = label
        self._every = every if hvd.size() > 1 else 0
        self._bad: list[tuple[Bucket, Tensor]] = []
        self._bad_step = 0
        self._comparison: tuple[Comparison, list[str], int] | None = None

    def due(self, step: int) -> bool:
        """Whether step `step`, from 1, is one with a proof."""
        return self._every > 0 and (step <= _FIRST_STEPS or step % self._every == 0)

    def before_sending(self, step: int, bucket: Bucket) -> None:
        """Note in the bucket's signals if a gradient of this rank is not finite."""
        if not self.due(step):
            return
        if self._bad_step != step:
            self._bad, self._bad_step = [], step
        # A sum is NaN or infinite where an element is, and takes one reading.
        bad = ~torch.isfinite(torch.stack([view.sum() for view in bucket.views]))
        self._bad.append((bucket, bad))
        # The tail of the last bucket is read: it speaks for all.
        some = torch.stack([each.any().to(bad.device) for _, each in self._bad]).any()
        bucket.signals[NONFINITE] = some

    def after(self, step: int, heard: Heard | None, buckets: Sequence[Bucket]) -> None:
        """Start the comparison of a step that is due; name the ranks whose gradients were bad."""
        if not self.due(step):
            return
        if heard is not None:
            self.name_nonfinite(heard)
        weights = [(n, p) for n, p in self._named if p.requires_grad]
        names = [f"the weight {name}" for name, _ in weights]
        names += [f"the averaged gradient, bucket {i + 1}" for i in range(len(buckets))]
        tensors = [*(p for _, p in weights), *(bucket.gradients for bucket in buckets)]
        comparison = Comparison(checksums(tensors), f"{self._label}.proof")
        self._comparison = (comparison, names, step)

    def name_nonfinite(self, heard: Heard) -> None:
        """Warn on every rank which ranks' gradients were NaN or infinite, and where.

        Not an error: a GradScaler finds its scale by such steps and skips them.
        """
        if not heard.nonfinite > 0:
            return
        found = [
            name
            for bucket, bad in self._bad
            for name, is_bad in zip(self._names(bucket), bad.tolist(), strict=True)
            if is_bad
        ]
        everyone = hvd.allgather_object(found, name=f"{self._label}.nonfinite")
        where = "; ".join(
            f"rank {rank}, {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
            for rank, names in enumerate(everyone)
            if names
        )
        logger.warning(
            f"step {self._bad_step}: gradients were NaN or infinite before averaging, and are on "
            f"every rank after it: {where}."
        )

    def _names(self, bucket: Bucket) -> list[str]:
        names = {id(parameter): name for name, parameter in self._named}
        return [names[id(parameter)] for parameter in bucket.parameters]

    def conclude(self) -> None:
        """Read the comparison that is under way, if one is.

        Raises:
            HvdtoolsError: The replicas have parted: on every rank.
        """
        if self._comparison is None:
            return
        comparison, names, step = self._comparison
        self._comparison = None
        with waiting(f"the comparison of step {step}"):
            differences = comparison.conclude()
        if differences:
            raise HvdtoolsError(
                f"The replicas have parted: in step {step} {in_words(differences, names)}; "
                f"{PARTED_REMEDY}."
            )
