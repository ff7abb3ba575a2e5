"""Run in every rank, or alone: all scripts of a folder, one after another. Usage: ... FOLDER

Prints for each {"script": its name, "lines": what it printed}. A script that dies ends the
program, for the other ranks may be waiting for it: the later ones have not run then.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path


def main(folder: Path) -> None:
    for script in sorted(folder.resolve().glob("*.py")):
        home = script.with_suffix("")  # where the script may write
        home.mkdir(exist_ok=True)
        os.chdir(home)
        print(f"running {script.stem}", flush=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(script), run_name="__main__")
        record = {"script": script.stem, "lines": printed.getvalue().splitlines()}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
