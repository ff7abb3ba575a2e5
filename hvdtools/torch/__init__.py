"""PyTorch models trained by Horovod.

import hvdtools.torch as hvt

topology = hvt.init()
model, optimizer = hvt.prepare(model, optimizer)
loader = hvt.shard(loader)
# the training loop stays as it was
loss = hvt.average(loss.item(), count=len(batch))
"""

from hvdtools.core import installed

# Before Horovod's library is loaded: one that was built for another PyTorch
# would end in an undefined symbol, or worse.
installed.require("torch")

from hvdtools.core.topology import Topology  # noqa: E402
from hvdtools.torch.checkpoint import load, save  # noqa: E402
from hvdtools.torch.collect import average, broadcast, gather  # noqa: E402
from hvdtools.torch.compiling import compile  # noqa: E402
from hvdtools.torch.data.samplers import ShardSampler  # noqa: E402
from hvdtools.torch.data.shard import shard  # noqa: E402
from hvdtools.torch.in_sync import assert_in_sync  # noqa: E402
from hvdtools.torch.learning_rate import scale_lr  # noqa: E402
from hvdtools.torch.loss_weights import current_weight as batch_weight  # noqa: E402
from hvdtools.torch.loss_weights import weight  # noqa: E402
from hvdtools.torch.prepare import no_sync, prepare  # noqa: E402
from hvdtools.torch.session import init, stop_requested  # noqa: E402

__all__ = [
    "ShardSampler",
    "Topology",
    "assert_in_sync",
    "average",
    "batch_weight",
    "broadcast",
    "compile",
    "gather",
    "init",
    "load",
    "no_sync",
    "prepare",
    "save",
    "scale_lr",
    "shard",
    "stop_requested",
    "weight",
]
