"""The networks of benchmarks/: what they are said to be, and that they train."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hvdtools.bench.programs.common.gpt_shapes import GPT_124M, GPT_350M, GPT_MINI, Shape
from hvdtools.bench.programs.torch import data as torch_data
from hvdtools.bench.programs.torch import models as torch_models
from hvdtools.bench.programs.torch import steps as torch_steps
from hvdtools.bench.programs.torch.gpt import Gpt
from hvdtools.bench.programs.torch.models import MODELS, adamw

CPU = torch.device("cpu")
# Published: torchvision's tables for the two, OpenAI's released files for the GPTs.
PARAMETERS = {
    "cnn": 151_306,
    "mlp": 24 * (1024 * 1024 + 1024),
    "resnet50": 25_557_032,
    "vgg16": 138_357_544,
    "gpt-mini": 1_878_144,
    "gpt-124m": 124_439_808,
    "gpt-350m": 354_823_168,
}
CLASSES = {"cnn": 10, "mlp": 1024, "resnet50": 1000, "vgg16": 1000, "gpt-mini": 256}
CLASSES |= {"gpt-124m": 50257, "gpt-350m": 50257}


def on_meta(name: str) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return MODELS[name].make()


def one_batch(name: str, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    reads = MODELS[name].reads
    sequence = 32 if reads in torch_data.TEXTS else None
    data = torch_data.make(reads, "synthetic", samples, CPU, torch.float32, 0, 1, sequence)
    return next(iter(data.training))


def test_every_model_is_tested() -> None:
    assert PARAMETERS.keys() == CLASSES.keys() == MODELS.keys()
    assert all(model.reads in torch_models.READS for model in MODELS.values())


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert sum(weight.numel() for weight in on_meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_have_a_score_for_each_class(name: str) -> None:
    inputs, targets = one_batch(name, 2)
    scores = on_meta(name)(inputs.to("meta"))
    assert scores.shape == (*targets.shape, CLASSES[name])


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"gpt-124m", "gpt-350m"}))
def test_it_begins_by_guessing_and_every_weight_learns(name: str) -> None:
    """The two left out are the class of gpt-mini, and take 2 and 6 GB here."""
    torch.manual_seed(0)
    model = MODELS[name].make()
    inputs, targets = one_batch(name, {"vgg16": 2, "resnet50": 4}.get(name, 8))
    if MODELS[name].channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    optimizer = MODELS[name].optimizer(model.parameters(), 1e-3, CPU)
    before = torch_steps.loss(model(inputs), targets)
    assert abs(before.item() - math.log(CLASSES[name])) < 1
    before.backward()
    for label, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), label
        assert weight.grad.abs().max() > 0, label
    optimizer.step()
    assert torch_steps.loss(model(inputs), targets) < before


def test_fresh_gpts_guess_too() -> None:
    """The large ones' width and depth, but for the vocabulary: half the weights, no gradients."""
    torch.manual_seed(0)
    model = Gpt(Shape(GPT_124M.layers, GPT_124M.heads, GPT_124M.width, 1000, 64))
    tokens = torch.randint(1000, (2, 65))
    with torch.no_grad():
        loss = torch_steps.loss(model(tokens[:, :-1]), tokens[:, 1:])
    assert abs(loss.item() - math.log(1000)) < 0.5


def test_a_gpt_sees_no_later_token() -> None:
    torch.manual_seed(0)
    model = Gpt(Shape(layers=2, heads=2, width=16, vocabulary=50, longest=12))
    text = torch.randint(50, (1, 12))
    other = text.clone()
    other[0, 7] = (text[0, 7] + 1) % 50
    differs = (model(text) - model(other)).abs().amax(2)[0] > 0
    assert differs.tolist() == [False] * 7 + [True] * 5


def test_data_and_gpts_agree_on_their_texts() -> None:
    for reads, shapes in {"bytes": [GPT_MINI], "tokens": [GPT_124M, GPT_350M]}.items():
        for shape in shapes:
            assert torch_data.TEXTS[reads][:2] == (shape.vocabulary, shape.longest)


def test_gpt_is_gpt_2() -> None:
    """The same weights give the same scores as in Hugging Face's GPT-2."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers' GPT-2")
    shape = Shape(layers=3, heads=4, width=32, vocabulary=60, longest=20)
    options = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 60, "n_positions": 20}
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**options)).eval().double()
    mine = Gpt(shape).double()
    of_names = {"tokens": "wte", "places": "wpe", "norm": "ln_f", "blocks": "h"}
    of_names |= {"norm1": "ln_1", "norm2": "ln_2", "attend": "attn.c_attn"}
    of_names |= {"attended": "attn.c_proj", "widen": "mlp.c_fc", "narrow": "mlp.c_proj"}
    weights = dict(theirs.transformer.named_parameters())
    with torch.no_grad():
        for name, weight in mine.named_parameters():
            other = weights.pop(".".join(of_names.get(part, part) for part in name.split(".")))
            other.add_(0.1 * torch.randn_like(other))  # biases and scales begin as 0 and 1
            # Theirs are multiplied from the other side.
            linear = "attend" in name or "widen" in name or "narrow" in name
            weight.copy_(other.T if linear and other.dim() == 2 else other)
        assert not weights
        text = torch.randint(60, (2, 20))
        torch.testing.assert_close(mine(text), theirs(text).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_weights_are_named_and_shaped_as_torchvisions(name: str) -> None:
    models = pytest.importorskip("torchvision.models", reason="compares with torchvision's models")
    with torch.device("meta"):
        theirs = getattr(models, name)(weights=None).state_dict()
    mine = on_meta(name).state_dict()
    assert list(mine) == list(theirs)
    assert [value.shape for value in mine.values()] == [value.shape for value in theirs.values()]


def test_the_loss_is_the_mean_of_what_each_target_costs() -> None:
    scores, targets = torch.randn(3, 4, 5, dtype=torch.float64), torch.randint(5, (3, 4))
    chosen = scores.log_softmax(2).gather(2, targets.unsqueeze(2))
    torch.testing.assert_close(torch_steps.loss(scores, targets), -chosen.mean())
    torch.testing.assert_close(torch_steps.loss(scores[0], targets[0]), -chosen[0].mean())


def test_the_loss_is_worked_out_in_float32_at_least() -> None:
    targets = torch.randint(5, (3,))
    for given, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        scores = torch.randn(3, 5).to(given)
        loss = torch_steps.loss(scores, targets)
        assert loss.dtype == expected
        torch.testing.assert_close(loss, torch_steps.loss(scores.to(expected), targets))


def test_matrices_decay_and_the_rest_does_not() -> None:
    model = on_meta("gpt-mini")
    optimizer = adamw(model.parameters(), 1e-3, CPU)
    decayed, kept = optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {weight.dim() for weight in decayed["params"]} == {2}
    assert {weight.dim() for weight in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
