"""Starts a job: flags -> `JobSpec` -> `Plan` or `Submission` -> printed, started or handed over."""

from hvdtools.launch.machine import detect_host
from hvdtools.launch.outcome import Outcome
from hvdtools.launch.plan import Plan, Submission
from hvdtools.launch.planner import make_plan
from hvdtools.launch.run import run
from hvdtools.launch.spec import JobSpec

__all__ = ["JobSpec", "Outcome", "Plan", "Submission", "detect_host", "make_plan", "run"]
