"""Where the tests find the project's files and its command."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROJECT = TESTS.parent
BENCHMARKS = PROJECT / "benchmarks"
SCRIPTS = PROJECT / "launch"
GOLDEN = TESTS / "golden"
# What ranks run.
PROGRAMS = TESTS / "ranks" / "programs"
HVDTOOLS = str(Path(sys.executable).parent / "hvdtools")
