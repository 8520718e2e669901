# SPDX-License-Identifier: GPL-3.0-or-later
"""SGLang's server with the request guard in front of it, which it has no option for.

usage: sglang_start.py ARGUMENTS OF sglang.launch_server

A process that SGLang starts runs the first lines of this file again: it is the program that they all come from. Without
the guard there is no start.
"""

from __future__ import annotations

import runpy
import sys

import request_guard

try:
    request_guard.guard_applications()
except ImportError as error:
    sys.exit(f"the request guard does not fit this version of SGLang, so it is not started: {error}")

if __name__ == "__main__":
    # This file stays the main module, so that SGLang's own processes begin with it.
    runpy.run_module("sglang.launch_server", run_name="__main__")
