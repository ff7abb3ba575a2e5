"""Run in every rank: train all rows of the equality table, save the weights. Usage: ... FOLDER"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch
from equality import CASES, ThisRank, train


def main(folder: Path) -> None:
    world = ThisRank()
    trained: dict[str, object] = {}
    for case in CASES:
        try:
            trained[str(case)] = train(world, case)
        except Exception:
            trained[str(case)] = traceback.format_exc()
    torch.save(trained, folder / f"rank{world.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
