"""Forms a Horovod job from ranks that srun, torchrun or an mpirun without MPI started.

Horovod's Gloo expects each rank to know its rank, the size, and a key-value store through
which ranks find each other. horovodrun prepares both; here the ranks do it themselves,
without ssh or MPI:

1. Rank 0 serves the store (`server`); the others discover its address (`static`, `pmi`,
   `pmix`) and probe it until it accepts them (`client`).
2. Each rank registers a `Member`; rank 0 publishes the complete membership (`membership`).
3. Each rank reads its place from it and sets Horovod's variables (`gloo`).

That is a handful of requests per rank. `job` starts Horovod after that.
"""

from __future__ import annotations

from hvdtools.rendezvous.gloo import prepare_gloo
from hvdtools.rendezvous.network import apply_named_interface

__all__ = ["apply_named_interface", "prepare_gloo"]
