"""The former place of `hvdtools.core.text.count_noun`."""

from hvdtools.core.text import count_noun as counted

__all__ = ["counted"]
