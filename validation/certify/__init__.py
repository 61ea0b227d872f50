"""Certificates of an optical backend, from its frames alone, simulated or real."""

from validation.certify.certificate import Certificate
from validation.certify.suite import Report, Scale, certified

__all__ = ["Certificate", "Report", "Scale", "certified"]
