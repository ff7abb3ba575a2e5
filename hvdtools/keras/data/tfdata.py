"""This rank's part of a tf.data.Dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.sharding import Deal
from hvdtools.keras.data.chain import INFINITE, Batches, Chain
from hvdtools.keras.data.even import evened
from hvdtools.keras.data.weights import sample_weight, weighted


def described(dataset: Any, chain: Chain) -> str:
    """What must be the same on every rank, the order apart."""
    samples = "endless samples" if chain.samples == INFINITE else f"{chain.samples} samples"
    batches = "no batches" if chain.batches is None else f"batches of {chain.batches.rows}"
    return f"a tf.data.Dataset of {samples}, {batches}, {dataset.element_spec}"


def part(dataset: Any, chain: Chain, deal: Deal) -> Any:
    """A dataset of one rank's samples, in batches as large as before.

    Args:
        deal: How samples are dealt; its `batch` is not looked at.

    Raises:
        HvdtoolsError: "drop" would leave everything out.
    """
    if chain.batches is None:
        own = _elements(dataset, chain.samples, deal)
    else:
        own = _rebatched(dataset, chain.batches, deal)
    return own.prefetch(tf.data.AUTOTUNE)


def _rebatched(dataset: Any, batches: Batches, deal: Deal) -> Any:
    counted = deal.uneven == "weighted"
    deal = replace(deal, batch=batches.rows)
    if batches.drop_remainder:
        # Without its incomplete last batch the order of all ranks is even anyway.
        deal = replace(deal, uneven="drop")
    if batches.samples != INFINITE:
        noun, rows = ("whole batches", batches.rows) if batches.drop_remainder else ("samples", 1)
        deal.require_enough(batches.samples // rows, noun)
    own = _rows(dataset, batches, deal).shard(deal.size, deal.rank)
    own = own.batch(batches.rows, drop_remainder=batches.drop_remainder)
    return _with_weights(own, batches.samples, deal) if counted else own


def _rows(dataset: Any, batches: Batches, deal: Deal) -> Any:
    """All samples to deal, one by one."""
    samples = batches.samples
    if samples != INFINITE:
        keep, again = _kept(samples, deal), _again(samples, deal)
        if again or keep < samples or batches.mapped:
            dataset = evened(dataset, batches.count, samples, keep=keep, again=again)
        samples = keep + again
    return dataset.unbatch().apply(tf.data.experimental.assert_cardinality(samples))


def _kept(samples: int, deal: Deal) -> int:
    """How many samples are dealt, the repeated ones not counted."""
    return samples - samples % deal.size if deal.uneven == "drop" else samples


def _again(samples: int, deal: Deal) -> int:
    """How many samples are repeated to complete the last round."""
    return -samples % deal.size if deal.uneven in ("pad", "weighted") else 0


def _elements(dataset: Any, samples: int, deal: Deal) -> Any:
    """One rank's elements, where an element is a sample."""
    if samples == INFINITE:
        return dataset.shard(deal.size, deal.rank)
    deal.require_enough(samples, "samples")
    again = _again(samples, deal)
    if again:
        rounds, batches = -(-samples // deal.size), dataset.batch(deal.size)
        dataset = evened(batches, rounds, samples, keep=samples, again=again).unbatch()
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(samples + again))
    own = dataset.shard(deal.size, deal.rank)
    kept = deal.length(samples)
    return own if kept == int(own.cardinality()) else _first(own, kept)


def _first(elements: Any, count: int) -> Any:
    """take(), but read to the end: a cache() before it would otherwise never be complete."""

    def is_first(number: Any, _: Any) -> Any:
        return number < count

    def without_number(_: Any, element: Any) -> Any:
        return element

    kept = elements.enumerate().filter(is_first).map(without_number)
    return kept.apply(tf.data.experimental.assert_cardinality(count))


def _with_weights(own: Any, samples: int, deal: Deal) -> Any:
    """Weigh each batch: 1 a sample, but in an incomplete last step."""
    usual = np.ones(deal.batch, keras.config.floatx())
    last, last_step = usual, -1
    if deal.uneven == "weighted" and samples != INFINITE:
        last = np.array(last_weights(samples, deal), usual.dtype)
        last_step = int(own.cardinality()) - 1

    def weigh(step: Any, batch: Any) -> Any:
        is_last = tf.equal(step, last_step)
        of_this = tf.cond(is_last, lambda: tf.constant(last), lambda: tf.constant(usual))
        return weighted(batch, of_this, _to_dtype)

    return own.enumerate().map(weigh)


def last_weights(samples: int, deal: Deal) -> list[float]:
    """What the samples of this rank's batch weigh in the last step of "weighted"; 0: a stand-in."""
    rounds = -(-samples // deal.size)
    before = (rounds - 1) // deal.batch * deal.batch
    rows = rounds - before
    real = len(deal.own(samples)) - before
    weight = sample_weight(deal.size, rows, samples - before * deal.size)
    return [weight] * real + [0.0] * (rows - real)


def _to_dtype(own: Any, like: Any) -> Any:
    return tf.cast(own, like.dtype)
