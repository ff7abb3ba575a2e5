"""Starts a job: flags -> `JobSpec` -> `Plan` -> printed, or started by `run`."""

from hvdtools.launch.machine import look_around
from hvdtools.launch.outcome import Outcome
from hvdtools.launch.plan import Plan, make_plan
from hvdtools.launch.run import run
from hvdtools.launch.spec import JobSpec

__all__ = ["JobSpec", "Outcome", "Plan", "look_around", "make_plan", "run"]
