"""One engine's training in train_torch.py: its own model, block by block."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from hvdtools.bench.programs.torch.data import Batch, Data, FixedBatch, Loader, for_ever, on_device
from hvdtools.bench.programs.torch.engine import Engine
from hvdtools.bench.programs.torch.memory import PeakMemory
from hvdtools.bench.programs.torch.models import Model
from hvdtools.bench.programs.torch.process_group import wait_for_device
from hvdtools.bench.programs.torch.steps import TrainingStep, clock_for, phase_means_s, run_steps
from hvdtools.core.errors import HvdtoolsError


@dataclass(frozen=True)
class Workload:
    """What every engine of a job trains.

    Attributes:
        model: Whose network.
        data: All ranks' samples, or this rank's one batch.
        dtype: Of weights and inputs.
        bfloat16: Whether the forward pass runs under autocast.
        lr: The learning rate of the whole job.
        seed: Of the weights and of the order of samples.
        steps: In a block; None where a block is an epoch.
    """

    model: Model
    data: Data
    dtype: torch.dtype
    bfloat16: bool
    lr: float
    seed: int
    steps: int | None


class Trainer:
    """Trains `work` with one engine; the model is made when the first block is run.

    Args:
        begin_together: Returns when all ranks have called it.
        shared: Batches that all engines of the job take in turn; None if each has
            the data to itself.

    Attributes:
        blocks: Of each block so far its steps and the mean seconds of each phase.
        peak_memory_bytes: What model, gradients, optimizer and the first block took at most.
    """

    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        begin_together: Callable[[], None],
        shared: Iterator[Batch] | None = None,
    ) -> None:
        self.engine, self.workload = engine, workload
        self.blocks: list[tuple[int, list[float]]] = []
        self.peak_memory_bytes = 0
        self._begin_together, self._shared = begin_together, shared
        self._clock = clock_for(engine.device)
        self._step: TrainingStep | None = None

    def block(self) -> float:
        """Run one block; this rank's seconds for it, until its device was done."""
        if self._step is not None:
            return self._timed(self._step)
        # The other engines rest meanwhile, so that what is taken now is this one's.
        memory = PeakMemory(self.engine.device)
        self._step = self._build()
        seconds = self._timed(self._step)
        self.peak_memory_bytes = memory.read()
        return seconds

    def _build(self) -> TrainingStep:
        torch.manual_seed(self.workload.seed)
        workload, engine = self.workload, self.engine
        self.channels_last = workload.model.channels_last and engine.takes_channels_last
        # A GPU draws hundreds of millions of weights much faster, and others than the CPU does:
        # float64 is for comparing the two.
        compares_devices = workload.dtype == torch.float64
        with torch.device("cpu") if compares_devices else engine.device:
            model = workload.model.make()
        model = model.to(engine.device, workload.dtype)
        if self.channels_last:
            # torch's own overloads know no module with a memory format alone.
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = workload.model.optimizer(model.parameters(), workload.lr, engine.device)
        self.model = model
        self.prepared, optimizer = engine.prepare(model, optimizer)
        self._training = self._share_of(workload.data.training)
        return TrainingStep(
            self.prepared,
            optimizer,
            self._shared or for_ever(self._training),
            engine.device,
            channels_last=self.channels_last,
            bfloat16=workload.bfloat16,
        )

    def _share_of(self, training: Loader | FixedBatch) -> Loader | FixedBatch:
        if isinstance(training, FixedBatch):
            batch = (training.inputs, training.targets)
            # Laid out here once: the steps then find nothing left to do.
            return FixedBatch(
                *on_device(batch, self.engine.device, channels_last=self.channels_last)
            )
        return training if self._shared else self.engine.shard(training, self.workload.seed)

    def _timed(self, step: TrainingStep) -> float:
        device = self.engine.device
        if self.workload.steps is None:
            self._begin_epoch()
        wait_for_device(device)
        self._begin_together()
        begun_s = time.perf_counter()
        if self.workload.steps is None:
            step.batches = iter(self._training)  # which starts whatever loads them
        steps = run_steps(step, self._clock, self.workload.steps)
        wait_for_device(device)
        seconds = time.perf_counter() - begun_s
        if not steps:
            raise HvdtoolsError(
                "This rank's part of the data is less than one batch: use a smaller --batch-size."
            )
        self.blocks.append((steps, phase_means_s(self._clock, steps)))
        return seconds

    def _begin_epoch(self) -> None:
        assert not isinstance(self._training, FixedBatch)  # train_torch.py refuses it
        if isinstance(self._training.sampler, DistributedSampler):
            self._training.sampler.set_epoch(len(self.blocks))

    @property
    def steps_per_block(self) -> int:
        return self.blocks[-1][0]

    @property
    def loss(self) -> float:
        """Of the last step, on this rank; waits for the device."""
        return float("nan") if self._step is None else self._step.loss.item()

    def phases_s(self, counted: int) -> list[float]:
        """This rank's seconds a step in each phase: the median over the last `counted` blocks.

        Of a block it is the mean, as the block's own time is: a proof in one step of a
        hundred must not fall out of the phases and stay in the blocks.
        """
        means = [phases for _, phases in self.blocks[-counted:]]
        return [statistics.median(values) for values in zip(*means, strict=True)]

    def accuracy(self) -> float | None:
        """The share of all test images that the model names rightly; None without a test set."""
        test = self.workload.data.test
        if test is None:
            return None
        inputs, targets = on_device(test, self.engine.device, channels_last=self.channels_last)
        self.model.eval()
        with torch.no_grad():
            right = self.model(inputs).argmax(1) == targets
        self.model.train()
        return float(right.double().mean())

    def digest(self) -> list[float]:
        """The bytes of the SHA-256 of all weights, as numbers that can be gathered."""
        digest = hashlib.sha256()
        for weight in self.weights():
            digest.update(weight.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return [float(byte) for byte in digest.digest()]

    def weights(self) -> list[Tensor]:
        """The model's parameters, on the CPU."""
        return [weight.detach().cpu() for weight in self.model.parameters()]


def trained(model: nn.Module) -> Sequence[nn.Parameter]:
    """The parameters that have gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
