"""The engines of one job, measured: what train_torch.py prints and writes."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.data import DataLoader

from hvdtools.bench.programs.torch.data import for_ever, make
from hvdtools.bench.programs.torch.engine import Engine
from hvdtools.bench.programs.torch.engines import spokesman, start
from hvdtools.bench.programs.torch.memory import warm_up
from hvdtools.bench.programs.torch.models import MODELS
from hvdtools.bench.programs.torch.training import Trainer, Workload, trained
from hvdtools.bench.results.measured import PHASES, Training, to_dict
from hvdtools.bench.run.interleave import (
    InterleavedBlocks,
    StoppingRule,
    run_interleaved,
    stopping_rule_of,
)

# Of one rank, where nothing is said. On noise it has only to keep the numbers finite.
LR_OF_DIGITS, LR_OF_OTHERS = 0.03, 1e-4
SAY_EVERY_S = 2.0


def work_of(options: argparse.Namespace, engine: Engine) -> Workload:
    """What the options say is to be trained."""
    model = MODELS[options.model]
    # Of weights and inputs; under bfloat16 autocast casts what gains by it.
    dtype = torch.float64 if options.precision == "float64" else torch.float32
    lr = options.lr
    if lr is None:
        lr = LR_OF_DIGITS if model.reads == "digits" else LR_OF_OTHERS
    # Ranks that all had the same batch would agree without averaging anything.
    seed = options.seed + engine.rank
    data = make(
        model.reads, options.data, options.batch_size, engine.device, dtype, options.workers, seed
    )
    return Workload(
        model=model,
        data=data,
        dtype=dtype,
        bfloat16=options.precision == "bfloat16",
        lr=lr * engine.size,
        seed=options.seed,
        steps=None if options.epochs else options.steps,
    )


def trainers_of(engines: Sequence[Engine], workload: Workload) -> dict[str, Trainer]:
    """A trainer for each engine, by its name."""
    speaker = spokesman(engines)
    loader, shared = workload.data.training, None
    if workload.steps and isinstance(loader, DataLoader) and loader.num_workers:
        # Loaders of their own would fill up while another engine has its turn, and then seem fast.
        shared = for_ever(speaker.shard(loader, workload.seed))
    return {
        engine.name: Trainer(engine, workload, lambda: _meet(speaker), shared) for engine in engines
    }


def _meet(speaker: Engine) -> None:
    speaker.gather([0.0])


def rule_of(options: argparse.Namespace) -> StoppingRule:
    """When it is over: after exactly so many epochs, or as the options of turns say."""
    if not options.epochs:
        return stopping_rule_of(options)
    counted = options.epochs - options.warmup_epochs
    return StoppingRule(0.0, math.inf, counted, counted, options.warmup_epochs)


def told(trainer: Trainer, options: argparse.Namespace) -> Callable[[], float]:
    """The trainer's block, after which rank 0 says how fast it was: each epoch, or now and then."""
    said_s = -math.inf

    def block() -> float:
        nonlocal said_s
        seconds = trainer.block()
        now_s = time.perf_counter()
        if trainer.engine.rank == 0 and (options.epochs or now_s - said_s > SAY_EVERY_S):
            said_s = now_s
            count = len(trainer.blocks)
            which = f"epoch {count}/{options.epochs}" if options.epochs else f"block {count}"
            samples = trainer.engine.size * options.batch_size * trainer.steps_per_block
            speed = f"loss {trainer.loss:.4f}, {samples / seconds:.0f} samples/s"
            print(f"{trainer.engine.name}, {which}: {speed}", flush=True)
        return seconds

    return block


def measured(
    trainer: Trainer, interleaved: InterleavedBlocks, options: argparse.Namespace, speaker: Engine
) -> Training:
    """What was measured of one engine; the same on every rank but for the accuracy."""
    engine, workload = trainer.engine, trainer.workload
    blocks, steps = interleaved.rank_block_s[engine.name], trainer.steps_per_block
    mine = [*trainer.phases_s(len(blocks)), float(trainer.peak_memory_bytes)]
    *phases_s, peaks = zip(*speaker.gather(mine), strict=True)
    digests = speaker.gather(trainer.digest())
    compares = engine.size > 1 and engine.name != "no_comm"
    return Training(
        engine=engine.name,
        transport=engine.transport,
        device=engine.device.type,
        model=options.model,
        data=options.data,
        precision=options.precision,
        batch_per_rank=options.batch_size,
        threads_per_rank=torch.get_num_threads(),
        lr=workload.lr,
        parameters=sum(weight.numel() for weight in trained(trainer.model)),
        gradient_bytes=sum(each.numel() * each.itemsize for each in trained(trainer.model)),
        allreduces_per_step=engine.allreduces_per_step(trainer.prepared),
        steps_per_block=steps,
        block_s=tuple(interleaved.slowest_s(engine.name)),
        rank_step_s=tuple(
            statistics.median(seconds) / steps for seconds in zip(*blocks, strict=True)
        ),
        phase_s=dict(zip(PHASES, phases_s, strict=True)),
        peak_memory_bytes=tuple(int(peak) for peak in peaks),
        stopped_by=interleaved.stopped_by,
        accuracy=trainer.accuracy() if options.epochs else None,
        in_sync=all(digest == digests[0] for digest in digests) if compares else None,
    )


def measure(options: argparse.Namespace) -> None:
    """Train with each engine in turn; rank 0 prints and writes what came of it."""
    engines = start(options.engine)
    speaker = spokesman(engines)
    workload = work_of(options, speaker)
    first = speaker.rank == 0
    for engine in engines if first else ():
        kept = engine.takes_channels_last or not workload.model.channels_last
        print(
            f"{engine.name} over {engine.transport}, {engine.size} rank(s): lr {workload.lr:g}"
            + ("" if kept else "; contiguous, since it does not take weights channels-last"),
            flush=True,
        )
    warm_up(speaker.device, workload.model.optimizer)
    trainers = trainers_of(engines, workload)
    blocks = {name: told(trainer, options) for name, trainer in trainers.items()}
    interleaved = run_interleaved(blocks, rule_of(options), speaker.gather)
    results = [measured(trainer, interleaved, options, speaker) for trainer in trainers.values()]
    if not first:
        return
    for result in results:
        print(in_words(result), flush=True)
    if options.weights:
        torch.save({name: each.weights() for name, each in trainers.items()}, options.weights)
    if options.result:
        with options.result.open("a") as file:
            file.writelines(json.dumps(to_dict(result)) + "\n" for result in results)


def in_words(result: Training) -> str:
    """One line of what matters."""
    rate = statistics.median(result.block_rates)
    split = ", ".join(f"{name} {max(ranks) * 1e3:.3g}" for name, ranks in result.phase_s.items())
    said = f"{result.engine}: {rate:.1f} samples/s; ms a step on the slowest rank: {split}"
    if result.accuracy is not None:
        said += f"; test accuracy {result.accuracy:.4f}"
    return said + {True: "; replicas equal", False: "; REPLICAS DIFFER", None: ""}[result.in_sync]
