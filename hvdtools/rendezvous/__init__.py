"""Makes a Horovod job out of ranks that srun, torchrun or an mpirun without MPI started.

Horovod's Gloo wants each rank to know its place among all, and a key-value store to find
the others in. horovodrun prepares both; here ranks do so for themselves, with no ssh and
no MPI. Rank 0 serves the store (`store`), the others hear where it is (`ways`), and all
introduce themselves; rank 0 then publishes one address book (`book`) from which each rank
reads its place. That is a handful of requests for each rank.
"""

from __future__ import annotations

from hvdtools.rendezvous.controller import choose_controller, prepare_gloo
from hvdtools.rendezvous.variables import apply_named_interface

__all__ = ["apply_named_interface", "choose_controller", "prepare_gloo"]
