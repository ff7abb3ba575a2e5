"""Which options of sbatch are handed on as they are, and which have a flag of their own."""

from __future__ import annotations

import re

from hvdtools.core.errors import HvdtoolsError

# https://slurm.schedmd.com/sbatch.html: option -> what to say instead.
_INSTEAD = {
    "account": "use --account",
    "partition": "use --partition",
    "qos": "use --qos",
    "time": "use --time",
    "constraint": "use --constraint",
    "mail-type": "use --mail-type",
    "mail-user": "use --mail-user",
    "array": "use --array",
    "signal": "use --signal",
    "wait": "use --wait",
    "job-name": "use --name",
    "export": "use --env",
    "nodes": "use --nodes",
    "ntasks": "use -n",
    "ntasks-per-node": "use --ranks-per-node",
    "ntasks-per-core": "use --ranks-per-node",
    "ntasks-per-gpu": "use --ranks-per-node",
    "ntasks-per-socket": "use --ranks-per-node",
    "tasks-per-node": "use --ranks-per-node",
    "cpus-per-task": "use --cpus-per-rank",
    "cpus-per-gpu": "use --cpus-per-rank",
    "gpus": "use --gpus-per-node",
    "gpus-per-node": "use --gpus-per-node",
    "gpus-per-socket": "use --gpus-per-node",
    "gpus-per-task": "use --gpus-per-node, since it hides a rank's GPU from the others and so "
    "from NCCL",
    "distribution": "use --distribution",
    "clusters": "set SLURM_CLUSTERS in the environment",
    "wrap": "put the command behind --",
    "parsable": "the job's number is printed anyway",
    "test-only": "it submits nothing, so keep the script with --save and hand it to sbatch",
}
_NAME = re.compile(r"[a-z][a-z0-9-]+")


def check_passed(word: str) -> None:
    """Check "NAME" or "NAME=VALUE", an option of sbatch without its dashes.

    Raises:
        HvdtoolsError: It is no such word, or there is another way to say it.
    """
    name, _, value = word.partition("=")
    if not _NAME.fullmatch(name) or re.search(r"[\0\r\n]", value):
        raise HvdtoolsError(
            f"--sbatch {word!r} is not understood: write an option of sbatch in full and on one "
            "line, as in --sbatch mem=64G or --sbatch exclusive."
        )
    if name == "gres" and any(part.startswith("gpu") for part in value.split(",")):
        raise HvdtoolsError(f"--sbatch {word} has a way of its own: use --gpus-per-node.")
    # sbatch takes the beginning of a name for the whole, so "ntask" would be a second "ntasks".
    for known, instead in _INSTEAD.items():
        if known.startswith(name):
            raise HvdtoolsError(f"--sbatch {word} has a way of its own: {instead}.")
