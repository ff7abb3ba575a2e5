"""What Kubernetes takes for a name, an amount, a volume, a label or a toleration.

Sources: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and
.../labels/; for names of a job, the MPI operator's pkg/apis/kubeflow/validation/validation.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError, unknown_name

LABEL_LENGTH = 63
NAME_LENGTH = 253
# An int32, or an int64 that the operator hands to a Job, whose own limit is the smaller.
MOST_SECONDS = 2**31 - 1
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_OF_A_HOST = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_AMOUNT = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[kMGTPE]|[eE][0-9]+)?")


@dataclass(frozen=True)
class Volume:
    """A persistent volume claim and where it is mounted."""

    claim: str
    path: str
    read_only: bool


def one_of(kind: str, name: str, known: tuple[str, ...]) -> None:
    """Raise unless `name` is one of `known`."""
    if name not in known:
        raise unknown_name(kind, name, known)


def image(name: str | None) -> None:
    """Raise unless there is an image and its name has no blanks."""
    if not name:
        raise HvdtoolsError(
            "Say which image to run: --image NAME, made with launch/Dockerfile for instance."
        )
    if not re.fullmatch(r"[!-~]+", name):
        raise HvdtoolsError(f"{name!r} is not the name of an image: write registry/name:tag.")


def job_name(name: str, workers: int) -> None:
    """Raise unless the operator can name pods and a service after a job of this name."""
    last = f"{name}-worker-{workers - 1}"
    if not _LABEL_OF_A_HOST.fullmatch(name):
        raise HvdtoolsError(
            f"--name {name} cannot name pods: use lower case letters, digits and dashes, a letter "
            "first and no dash last."
        )
    if len(last) > LABEL_LENGTH:
        raise HvdtoolsError(
            f"--name {name} is too long: its last worker would be {last}, with {len(last)} "
            f"characters, and {LABEL_LENGTH} are allowed."
        )


def dns_label(option: str, name: str) -> None:
    """Raise unless `name` is an RFC 1123 label."""
    if not _LABEL.fullmatch(name) or len(name) > LABEL_LENGTH:
        raise HvdtoolsError(
            f"{option} {name} is no name for it: use up to {LABEL_LENGTH} lower case letters, "
            "digits and dashes, and no dash first or last."
        )


def dns_name(option: str, name: str) -> None:
    """Raise unless `name` is an RFC 1123 subdomain."""
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise HvdtoolsError(
            f"{option} {name} is no name for it: use lower case letters, digits, dashes and dots."
        )


def quantity(option: str, amount: str) -> None:
    """Raise unless `amount` is more than none, in bytes or with a unit."""
    number = _AMOUNT.fullmatch(amount)
    if number is None or not float(number[1]):
        raise HvdtoolsError(f"{option} {amount} is no amount of memory: write it as in 64Gi.")


def resource(name: str) -> None:
    """Raise unless `name` is that of a device plugin's resource ("nvidia.com/gpu")."""
    if "/" not in name or not _is_key(name):
        raise HvdtoolsError(
            f"--gpu-resource {name} is no resource of a device plugin: write it as in "
            "nvidia.com/gpu."
        )


def seconds(option: str, number: int | None) -> None:
    """Raise unless `number` is a time that Kubernetes can hold, or None."""
    if number is not None and not 0 <= number <= MOST_SECONDS:
        raise HvdtoolsError(f"{option} {number} is no time: give 0 to {MOST_SECONDS} seconds.")


def read_volumes(texts: tuple[str, ...]) -> tuple[Volume, ...]:
    """The volumes of "claim:/path" and "claim:/path:ro".

    Raises:
        HvdtoolsError: One is written otherwise, or two have one path.
    """
    volumes = tuple(_read_volume(text) for text in texts)
    paths = [volume.path for volume in volumes]
    for path in paths:
        if paths.count(path) > 1 or path == "/dev/shm":
            raise HvdtoolsError(f"Two volumes are mounted at {path}: give each a path of its own.")
    return volumes


def _read_volume(text: str) -> Volume:
    claim, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not path.startswith("/") or mode not in ("", "ro") or rest.endswith(":"):
        raise HvdtoolsError(
            f"--volume {text} is not understood: write CLAIM:/PATH, perhaps with :ro behind it."
        )
    dns_name("--volume", claim)
    return Volume(claim, path.rstrip("/") or "/", mode == "ro")


def read_label(text: str) -> tuple[str, str]:
    """The key and the value of "key=value".

    Raises:
        HvdtoolsError: It is written otherwise.
    """
    key, equals, value = text.partition("=")
    if not equals or not _is_key(key) or not _is_value(value):
        raise HvdtoolsError(f"--node-selector {text} is no label of a node: write LABEL=VALUE.")
    return key, value


def read_toleration(text: str) -> dict[str, str]:
    """The toleration of "key", "key=value" and either with ":effect".

    Raises:
        HvdtoolsError: It is written otherwise.
    """
    taint, colon, effect = text.rpartition(":") if ":" in text else (text, "", "")
    key, equals, value = taint.partition("=")
    if not _is_key(key) or not _is_value(value) or (colon and effect not in EFFECTS):
        raise HvdtoolsError(
            f"--toleration {text} is not understood: write KEY, KEY=VALUE or KEY=VALUE:EFFECT, "
            f"with an effect of {', '.join(EFFECTS)}."
        )
    found = {"key": key, "operator": "Equal" if equals else "Exists"}
    return found | ({"value": value} if equals else {}) | ({"effect": effect} if effect else {})


def _is_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    if slash and (not _NAME.fullmatch(prefix) or len(prefix) > NAME_LENGTH):
        return False
    return bool(name) and _is_value(name)


def _is_value(text: str) -> bool:
    return _VALUE.fullmatch(text) is not None and len(text) <= LABEL_LENGTH
