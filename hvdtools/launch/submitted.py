"""What jobs have in common that somebody else allocates nodes for, later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.spec import JobSpec

# The flags that do not have their field's name.
_FLAGS = {"timeout_s": "timeout", "pass_on": "pass"}


def refuse(spec: JobSpec, reasons: Mapping[str, str], place: str) -> None:
    """Refuse each field of `spec` that was set and that `place` cannot follow.

    Args:
        reasons: Field name -> what to do instead, as the end of a sentence.
        place: The target, as the beginning of one ("Kubernetes").

    Raises:
        HvdtoolsError: There is such a field.
    """
    for field in dataclasses.fields(spec):
        if field.name in reasons and getattr(spec, field.name) != field.default:
            flag = _FLAGS.get(field.name, field.name).replace("_", "-")
            raise HvdtoolsError(f"{place} cannot follow --{flag}: {reasons[field.name]}.")


def refuse_broken_text(spec: JobSpec) -> None:
    """Refuse words that are not Unicode, such as file names in another encoding.

    Raises:
        HvdtoolsError: There is one.
    """
    for text in (*spec.command, *(value for _, value in spec.env)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise HvdtoolsError(
                f"{text!r} is not UTF-8, and the job's document can hold nothing else: rename the "
                "file or change the value."
            ) from None


def layout(spec: JobSpec) -> tuple[int, int]:
    """(nodes, ranks on each of them) to ask for; the last node may have fewer ranks.

    What was not said follows from the rest; without any, one node has all ranks.

    Raises:
        HvdtoolsError: Some of the nodes would have no rank.
    """
    nodes, per_node = spec.nodes, spec.ranks_per_node
    if per_node is None:
        per_node = -(-spec.ranks // (nodes or 1))
    if nodes is None:
        nodes = -(-spec.ranks // per_node)
    filled = -(-spec.ranks // per_node)
    if filled < nodes:
        raise HvdtoolsError(
            f"{spec.ranks} ranks, {per_node} on a node, fill {filled} of {nodes} nodes: use "
            f"--nodes {filled}, or another -n."
        )
    return nodes, per_node
