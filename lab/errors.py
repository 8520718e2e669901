"""The only exception that is meant for a person."""

from __future__ import annotations


class LabError(Exception):
    """What failed, on what, and what to do. The command line prints it without a traceback."""
