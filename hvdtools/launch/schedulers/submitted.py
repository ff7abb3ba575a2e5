"""What submitted jobs have in common, whatever their scheduler."""

from __future__ import annotations

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.spec import JobSpec


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
