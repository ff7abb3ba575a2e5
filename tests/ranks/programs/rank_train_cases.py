"""Run in every rank: train all cases and save the weights. Usage: ... FOLDER cpu|cuda [side]

With "side" the script trains on a stream of its own, as a careful user may.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path

import torch
from cases import all_cases
from worlds import Ranks


def main(folder: Path, device: str, side_stream: bool) -> None:
    torch.set_default_device(device)
    world = Ranks()
    trained: dict[str, object] = {}
    stream = torch.cuda.stream(torch.cuda.Stream()) if side_stream else contextlib.nullcontext()
    with stream:
        for name, (case, optimizer, dtype) in all_cases().items():
            try:
                model = case(world, optimizer, dtype)
                trained[name] = [parameter.detach().cpu() for parameter in model.parameters()]
            except Exception:
                trained[name] = traceback.format_exc()
    torch.save(trained, folder / f"rank{world.topology.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], "side" in sys.argv[3:])
