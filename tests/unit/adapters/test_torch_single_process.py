"""The adapter in a single process: its objects stay the user's, its sentences are clear."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError


@pytest.fixture(scope="module", autouse=True)
def _started() -> None:
    hvt.init()


def pair() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_init_alone() -> None:
    assert hvt.init() == hvt.Topology(0, 1, 0, 1, 0, 1)
    with pytest.raises(HvdtoolsError, match=r"expect_size=4\), but the job has 1 rank: .*-n 4"):
        hvt.init(expect_size=4)


def test_the_same_objects_come_back_and_stay_what_they_were() -> None:
    model, optimizer = pair()
    prepared = hvt.prepare(model, optimizer)
    assert prepared[0] is model
    assert prepared[1] is optimizer
    assert type(optimizer) is torch.optim.SGD
    assert list(model.state_dict()) == ["weight", "bias"]
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    twin(torch.ones(1, 3)).sum().backward()
    assert twin.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"accumulate": 0}, "accumulate=0 must be a whole number of at least 1"),
        ({"bucket_mib": 0.0}, "bucket_mib=0.0 must be above 0"),
    ],
)
def test_options_out_of_range(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(HvdtoolsError, match=sentence):
        hvt.prepare(*pair(), **options)


def test_a_model_with_nothing_to_train() -> None:
    model, optimizer = pair()
    model.requires_grad_(False)
    with pytest.raises(HvdtoolsError, match="no trainable parameter"):
        hvt.prepare(model, optimizer)


def test_an_optimizer_of_another_model() -> None:
    with pytest.raises(HvdtoolsError, match="holds 2 parameters that are not the model's"):
        hvt.prepare(pair()[0], pair()[1])


def test_prepared_twice() -> None:
    model, optimizer = hvt.prepare(*pair())
    with pytest.raises(HvdtoolsError, match="prepared already"):
        hvt.prepare(model, optimizer)


def test_parameters_of_another_prepared_model() -> None:
    model, _ = hvt.prepare(*pair())
    both = nn.Sequential(model, nn.Linear(2, 1))
    with pytest.raises(HvdtoolsError, match="shares parameters with one that is prepared already"):
        hvt.prepare(both, torch.optim.SGD(both.parameters(), lr=0.1))


def test_a_second_optimizer_with_other_options() -> None:
    model, _ = hvt.prepare(*pair())
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(HvdtoolsError, match=r"prepared with \{'accumulate': 1.*the same"):
        hvt.prepare(model, second, check_every=7)
    hvt.prepare(model, second)


def test_stall_seconds_out_of_range() -> None:
    with pytest.raises(HvdtoolsError, match=r"stall_s=inf\) must be a finite number"):
        hvt.init(stall_s=float("inf"))


def test_a_step_with_everything_frozen() -> None:
    model, optimizer = hvt.prepare(*pair())
    model.requires_grad_(False)
    optimizer.step()
    hvt.assert_in_sync(nn.Tanh())


def test_a_wrapped_model() -> None:
    model, optimizer = pair()
    with pytest.raises(HvdtoolsError, match="wrapped in DataParallel"):
        hvt.prepare(nn.DataParallel(model), optimizer)


def test_a_dtype_that_horovod_cannot_average() -> None:
    from hvdtools.torch.gradients.buckets import reduced_dtype

    with pytest.raises(HvdtoolsError, match=r"Parameter w is complex64.*float64, float32"):
        reduced_dtype("w", torch.zeros(1, dtype=torch.complex64))


def test_a_step_in_the_middle_of_accumulation() -> None:
    model, optimizer = hvt.prepare(*pair(), accumulate=2)
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(HvdtoolsError, match=r"not averaged.*1 of 2 backward passes.*zero_grad"):
        optimizer.step()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def test_zero_grad_restarts_the_count() -> None:
    model, optimizer = hvt.prepare(*pair(), accumulate=2)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.zero_grad()
    optimizer.step()  # nothing to apply, nothing to refuse
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(HvdtoolsError, match="1 of 2"):
        optimizer.step()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def test_a_step_under_no_sync() -> None:
    model, optimizer = hvt.prepare(*pair())
    with hvt.no_sync(model):
        model(torch.ones(1, 3)).sum().backward()
        with pytest.raises(HvdtoolsError, match="first outside no_sync"):
            optimizer.step()
    with pytest.raises(HvdtoolsError, match="was not prepared"), hvt.no_sync(nn.Linear(1, 1)):
        pass


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_second_derivatives_need_autograd_grad() -> None:
    model, _ = hvt.prepare(*pair())
    loss = model(torch.ones(1, 3)).square().sum()
    torch.autograd.grad(loss, model.parameters(), create_graph=True)
    with pytest.raises(HvdtoolsError, match=r"create_graph=True\) reached bias"):
        loss.backward(create_graph=True)


def test_sparse_gradients() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(HvdtoolsError, match="sparse=False"):
        model(torch.tensor([1])).sum().backward()


def test_average_of_one_rank_is_the_value() -> None:
    value = {"loss": 2.0, "rows": torch.tensor([1, 2]), "half": torch.ones(2, 1).bfloat16()}
    mean = hvt.average(value, count=3)
    assert mean["loss"] == 2.0
    assert mean["rows"].dtype == torch.float64
    assert mean["half"].dtype == torch.bfloat16
    assert mean["half"].shape == (2, 1)


def test_average_refuses_what_it_cannot_do() -> None:
    with pytest.raises(HvdtoolsError, match="'value', a str"):
        hvt.average("three")  # type: ignore[type-var]
    with pytest.raises(HvdtoolsError, match="count=-1"):
        hvt.average(1.0, count=-1)
    with pytest.raises(HvdtoolsError, match="count 0 on every rank"):
        hvt.average(float("nan"), count=0)
    with pytest.raises(HvdtoolsError, match="root=1: it must be one of the ranks 0 to 0"):
        hvt.broadcast(1, root=1)


START = "import hvdtools.torch as hvt; print(hvt.init())"


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120
    )


def test_a_launcher_that_promised_more_than_horovod_sees() -> None:
    """Rank variables of an mpirun that is not there: MPI would make a job of one."""
    pytest.importorskip("mpi4py")
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    ended = python(START, **{f"OMPI_COMM_WORLD_{n}": v for n, v in zip(names, "1212", strict=True)})
    assert ended.returncode != 0
    assert "started rank 1 of 2, but Horovod sees rank 0 of 1" in ended.stderr


def test_ranks_that_do_not_come_are_one_sentence() -> None:
    promised = {
        "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
    }  # fmt: skip
    ended = python(START, HVDTOOLS_RENDEZVOUS_TIMEOUT_S="1", **promised)
    assert ended.returncode != 0
    assert "Rank 0 did not answer within 1 s; tried 127.0.0.1:" in ended.stderr.splitlines()[-1]


def test_a_torch_that_horovod_was_not_built_for() -> None:
    code = (
        "import hvdtools.core.installed as i; i.framework_version = lambda name: '1.0'; "
        "import hvdtools.torch"
    )
    ended = python(code)
    assert ended.returncode != 0
    assert "torch 1.0 is installed, and the two do not fit: run `hvdtools build`" in ended.stderr


def test_verbs_before_init() -> None:
    ended = python("import hvdtools.torch as hvt; hvt.average(1.0)")
    assert "average() needs a running job: call hvdtools.torch.init() first" in ended.stderr
