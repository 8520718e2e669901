# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Plan a benchmark, and keep and compare what it measured
description:
  - The controller's side of a benchmark. It validates the settings, decides which scenarios each instance can take,
    keeps the records, compares them with the previous ones, and writes the page.
  - It reads what M(inference.fleet.benchmark_client) returned from the variables of the hosts (C(benchmark_checked),
    C(benchmark_results)), and makes no connection.
attributes:
  check_mode:
    support: full
    description: With O(state=recorded) nothing is written.
  diff_mode:
    support: none
    description: Only records are written.
options:
  state:
    description:
      - V(planned) decides what is measured, before anything is touched. It fails with all that is wrong.
      - V(recorded) keeps the figures and compares them.
    type: str
    required: true
    choices: [planned, recorded]
  records:
    description: The directory of the records, on the controller.
    type: path
    required: true
  settings:
    description:
      - The settings, by the names of role benchmark's variables without their prefix.
      - Valid are C(scenarios), C(requests), C(prompt_tokens), C(output_tokens), C(turns), C(document_tokens),
        C(document_questions), C(long_tokens), C(picture), C(repeats), C(live_concurrency) and C(keep).
    type: dict
    default: {}
  live:
    description: Whether it measures beside clients' requests.
    type: bool
    default: false
  pictures:
    description: With O(state=planned), whether the model takes pictures.
    type: bool
    default: true
  plan:
    description: With O(state=recorded), the result of O(state=planned).
    type: dict
    default: {}
seealso:
  - module: inference.fleet.benchmark_client
"""

EXAMPLES = r"""
- name: Decide what is measured
  inference.fleet.benchmark:
    state: planned
    records: ~/.config/inference-fleet/benchmarks/aws
    settings:
      scenarios: [at_1, at_64, document]
      repeats: 3
  register: benchmark_planned
  run_once: true
"""

RETURN = r"""
run:
  description: The id of the run.
  returned: with O(state=planned)
  type: str
hosts:
  description: For each host and instance the C(scenarios), and those C(left_out) with the reason.
  returned: with O(state=planned)
  type: dict
repeats:
  description: How often each scenario is measured.
  returned: with O(state=planned)
  type: int
lines:
  description: What is left out, for people.
  returned: with O(state=planned)
  type: list
  elements: str
rows:
  description: The figures, for the filter P(inference.fleet.table#filter).
  returned: with O(state=recorded)
  type: list
  elements: dict
columns:
  description: The table's columns.
  returned: with O(state=recorded)
  type: list
  elements: dict
notes:
  description: What a reader has to know.
  returned: with O(state=recorded)
  type: list
  elements: str
page:
  description: The page's path; empty where there is none.
  returned: with O(state=recorded)
  type: str
unmeasured:
  description: The scenarios without a figure, each with the reason.
  returned: with O(state=recorded)
  type: list
  elements: str
"""
