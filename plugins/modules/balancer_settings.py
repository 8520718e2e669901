# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_settings
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Compare target groups and their balancers with what the fleet needs
description:
  - Reads the target groups of C(fleet_target_groups), their attributes, targets, balancers and listeners, and the Auto
    Scaling groups behind them, and judges each setting that can lose requests. It changes nothing, and asks no host.
  - All hosts of the inventory count, whatever the run is limited to. Their variables decide what is wanted.
  - Run it once for all hosts. Without target groups for their tiers it makes no call.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  before_rollout:
    description:
      - Whether a rollout begins after this. Then only the target groups of the tiers of the play are looked at, and a
        host that is not registered is no error, because the rollout registers it.
      - RV(refusal) says whether and why it must not begin.
    type: bool
    default: false
  accept_errors:
    description: With O(before_rollout), report errors as warnings. In check mode they always are.
    type: bool
    default: false
seealso:
  - module: inference.fleet.aws_status
"""

EXAMPLES = r"""
- name: Compare the balancer's settings with what the fleet needs
  inference.fleet.balancer_settings:
  run_once: true
  register: balancer

- name: Show the commands that repair them
  inference.fleet.show:
    lines: "{{ balancer.repairs }}"
  run_once: true
"""

RETURN = r"""
rows:
  description: One for each setting of each target group, and for each host that is not as it should be.
  returned: always
  type: list
  elements: dict
  contains:
    group:
      description: The target group.
      type: str
      sample: fleet
    setting:
      description: The setting.
      type: str
      sample: deregistration delay
    is:
      description: What it is.
      type: str
      sample: 300 s
    wanted:
      description: What is wanted.
      type: str
      sample: at least 600 s
    why:
      description: What happens otherwise; empty where it is right.
      type: str
      sample: "streams longer than 300 s would be cut: set deregistration_delay.timeout_seconds to 600"
    verdict:
      description: V(ok), V(warning) or V(error).
      type: str
      sample: error
errors:
  description: What loses requests, as sentences with the commands that repair it.
  returned: always
  type: list
  elements: str
warnings_found:
  description: What should be repaired, likewise.
  returned: always
  type: list
  elements: str
repairs:
  description: The commands that repair errors and warnings, errors first.
  returned: always
  type: list
  elements: str
  sample:
    - >-
      aws elbv2 modify-target-group --region us-east-1 --target-group-arn
      arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/fleet/73e2d6bc24d8a067 --health-check-path /health
refusal:
  description: With O(before_rollout), why the rollout must not begin; empty for nothing.
  returned: always
  type: str
groups:
  description: The target groups that were looked at, by their names.
  returned: always
  type: list
  elements: str
"""
