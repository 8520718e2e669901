"""The one exception that a person is meant to read."""

from __future__ import annotations


class LabError(Exception):
    """What failed, on what, and what to do. The command line prints it without a traceback."""
