"""A sample that cannot be read, said in one sentence in whichever process it was read."""

from __future__ import annotations

from hvdtools.core.errors import HvdtoolsError


class BadSample(HvdtoolsError):  # noqa: N818 - the sentence, not the name, is read
    """A file of the data set holds what it must not.

    PyTorch hands on what a loading process raised as the same class with the whole
    traceback for a message, whose last line is ours: the rest is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())
