"""Forms a Horovod job from ranks that srun, torchrun or an mpirun without MPI started.

Horovod's Gloo expects each rank to know its rank, the size, and a key-value store through
which ranks find each other. horovodrun prepares both; here the ranks do it themselves,
without ssh or MPI. Rank 0 serves the store (`server`), the others find it (`discovery`),
and all report who they are; rank 0 then publishes one list of members (`membership`), from
which each rank reads its rank. That is a handful of requests per rank.
"""

from __future__ import annotations

from hvdtools.rendezvous.controller import choose_controller, prepare_gloo
from hvdtools.rendezvous.variables import apply_named_interface

__all__ = ["apply_named_interface", "choose_controller", "prepare_gloo"]
