"""What is asked of Slurm is checked before Slurm sees it."""

from __future__ import annotations

import dataclasses
import re

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.options import schedulers_with
from hvdtools.launch.schedulers.slurm.request import Slurm, seconds_of


def test_each_field_is_an_option_and_each_option_a_field() -> None:
    fields = {field.name for field in dataclasses.fields(Slurm)}
    assert fields == {option.field for option in Slurm.options()}
    assert all(schedulers_with(option.name)[0] == "slurm" for option in Slurm.options())


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:00", 5400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("2-12:30:10", 217810),
        ("0", float("inf")),
        ("unlimited", float("inf")),
    ],
)
def test_time_is_read_as_slurm_reads_it(time: str, seconds: float) -> None:
    assert seconds_of(time) == seconds
    assert Slurm(time=time).time == time


@pytest.mark.parametrize("time", ["", "1h", "1:2:3:4", "1-", "-5", "1.5", "١", "10\n"])
def test_a_time_that_slurm_does_not_write(time: str) -> None:
    with pytest.raises(HvdtoolsError, match="is not how Slurm writes a time"):
        Slurm(time=time)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"account": ""}, "--account '' is no single line"),
        ({"partition": "a\nb"}, "--partition 'a\\nb' is no single line"),
        ({"mail_user": "a\0b"}, "--mail-user"),
        ({"mail_type": "END,SOMETIMES"}, "Unknown mail type 'SOMETIMES': choose one of ALL"),
        ({"array": "1-4"}, "--array 1-4 is not a list of node counts"),
        ({"array": "0,1"}, "not a list of node counts"),
        ({"array": "2,2"}, "names a node count twice"),
        ({"signal": 0}, "--signal 0 is no time before the limit"),
        ({"signal": 70000}, "--signal 70000"),
        ({"time": "2", "signal": 120}, "--time 2 is over before training begins"),
        ({"sbatch": ("--mem=1",)}, "is not understood"),
        ({"sbatch": ("p=main",)}, "is not understood"),
        ({"sbatch": ("comment=a\nb",)}, "on one line"),
        ({"sbatch": ("",)}, "is not understood"),
        ({"sbatch": ("partition=main",)}, "has a way of its own: use --partition"),
        ({"sbatch": ("partit=main",)}, "use --partition"),
        ({"sbatch": ("ntasks=3",)}, "use -n"),
        ({"sbatch": ("job-name=x",)}, "use --name"),
        ({"sbatch": ("export=NONE",)}, "use --env"),
        ({"sbatch": ("gpus-per-task=1",)}, "hides a rank's GPU"),
        ({"sbatch": ("gres=shard:1,gpu:2",)}, "use --gpus-per-node"),
    ],
)
def test_what_cannot_be_asked(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(HvdtoolsError, match=re.escape(says)) as error:
        Slurm(**wrong)  # type: ignore[arg-type]
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_other_options_of_sbatch_are_handed_on() -> None:
    others = (
        "mem=64G",
        "exclusive",
        "gres=shard:2",
        "dependency=afterok:12",
        "comment=a b=c",
        "hint=",
    )
    assert Slurm(sbatch=others, mail_type="end,fail").sbatch == others
    assert Slurm(array="4,1,2").node_counts == (4, 1, 2)
