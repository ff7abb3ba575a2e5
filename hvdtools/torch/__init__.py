"""PyTorch models trained by Horovod.

import hvdtools.torch as hvt

topology = hvt.init()
model, optimizer = hvt.prepare(model, optimizer)
loader = hvt.shard(loader)
# the training loop stays as it was
loss = hvt.average(loss.item(), count=len(batch))
"""

from hvdtools import installed

# Before Horovod's library is loaded: one that was built for another PyTorch
# would end in an undefined symbol, or worse.
installed.require("torch")

from hvdtools.topology import Topology  # noqa: E402
from hvdtools.torch.collect import average, broadcast  # noqa: E402
from hvdtools.torch.prepare import no_sync, prepare  # noqa: E402
from hvdtools.torch.session import init  # noqa: E402
from hvdtools.torch.shard import ShardSampler, shard  # noqa: E402

__all__ = [
    "ShardSampler",
    "Topology",
    "average",
    "broadcast",
    "init",
    "no_sync",
    "prepare",
    "shard",
]
