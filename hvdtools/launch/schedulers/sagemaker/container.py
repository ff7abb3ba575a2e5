"""The form in which the image's own hvdtools starts the ranks: `entry` on every instance."""

from __future__ import annotations

import re
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.sagemaker import checks, limits
from hvdtools.launch.schedulers.sagemaker.request import SageMaker
from hvdtools.launch.spec import JobSpec

# What Java's `.*`, in AWS's own patterns, does not match.
_BREAK = re.compile("[\n\r\x85\u2028\u2029]")


def fill(tree: dict[str, Any], spec: JobSpec, target: SageMaker, nodes: int, per_node: int) -> None:
    """Give the request the words of `entry` and of the program.

    Raises:
        HvdtoolsError: A word is one that SageMaker does not take, or there are too many.
    """
    del target, nodes
    interface = () if spec.interface is None else ("--interface", spec.interface)
    words = ["--ranks-per-node", str(per_node), *interface, "--", *spec.command]
    checks.at_most("words of a command", words, limits.WORDS)
    for word in spec.command:
        if len(word) > limits.WORD_LENGTH or _BREAK.search(word):
            raise HvdtoolsError(
                f"SageMaker takes no word of more than {limits.WORD_LENGTH} characters and no line "
                f"break in one ({word[:40]!r}...): put it into a file of a --channel, or use --env."
            )
    tree["AlgorithmSpecification"]["ContainerArguments"] = words
