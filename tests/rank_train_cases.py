"""Run in every rank: train all cases and save the weights. Usage: ... FOLDER"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch
from cases import all_cases
from worlds import Ranks


def main(folder: Path) -> None:
    world = Ranks()
    torch.set_num_threads(1)
    trained: dict[str, object] = {}
    for name, (case, optimizer, dtype) in all_cases().items():
        try:
            model = case(world, optimizer, dtype)
            trained[name] = [parameter.detach() for parameter in model.parameters()]
        except Exception:
            trained[name] = traceback.format_exc()

    torch.save(trained, folder / f"rank{world.topology.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
