"""The former names of the functions in `hvdtools.rank_wrapper`."""

from hvdtools.rank_wrapper import TAG, parse_exit_line, watch_command
from hvdtools.rank_wrapper import bind_command as bound

watched = watch_command
read_ending = parse_exit_line

__all__ = ["TAG", "bound", "read_ending", "watched"]
