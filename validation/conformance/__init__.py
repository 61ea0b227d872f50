"""What it means to be a backend: a list of checks anyone can run on theirs."""

from validation.conformance.probe import CheckFailed, NotApplicable, Probe
from validation.conformance.suite import (
    CHECKS,
    Check,
    Outcome,
    failed,
    figures,
    name,
    report,
    run_checks,
)

checks = CHECKS

__all__ = [
    "CHECKS",
    "Check",
    "CheckFailed",
    "NotApplicable",
    "Outcome",
    "Probe",
    "checks",
    "failed",
    "figures",
    "name",
    "report",
    "run_checks",
]
