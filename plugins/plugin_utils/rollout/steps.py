# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The steps of a rollout: the only list, for journal, record, page, terminal and tests. Pure.

A new step needs a new line in STEPS, and its implementation.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


class Step(t.NamedTuple):
    """A step.

    Attributes:
        name: as the journal has it.
        label: as people read it.
        colour: of its bar on a light page.
        dark: of its bar on a dark page.
        out: whether the instance cannot serve in it.
        reports: whether an engine reports progress meanwhile, so that silence means something.
        balancer: whether it is one of the whole host at its target groups, which only hosts with such groups take.
        measures: whether it is one of a benchmark or a search of settings, and of no other rollout.
    """

    name: str
    label: str
    colour: str
    dark: str
    out: bool = False
    reports: bool = False
    balancer: bool = False
    measures: bool = False


#: In their order.
STEPS: tuple[Step, ...] = (
    Step("deregister", "deregister", "#a8542a", "#e08a5c", balancer=True),
    Step("drain", "drain", "#b26a00", "#e0a040"),
    Step("trial", "trial", "#8f5a0a", "#d9a441", out=True, measures=True),
    Step("measure", "measure", "#4f6bed", "#94a6ff", out=True, measures=True),
    Step("stop", "stop", "#68727e", "#8e99a5", out=True),
    Step("start", "start", "#2767c9", "#6aa5fb", out=True, reports=True),
    Step("gate", "gate", "#7b42c8", "#b48cf3", out=True),
    Step("undrain", "undrain", "#0c7f86", "#45bfc5"),
    Step("edge_gate", "edge gate", "#b0358a", "#e583c2"),
    Step("confirm", "confirm", "#2f7d32", "#6cc672"),
    Step("register", "register", "#1f6f54", "#52b894", balancer=True),
)


def of_instances() -> list[Step]:
    """The steps that every changed instance takes."""
    return [step for step in STEPS if not step.balancer and not step.measures]


def find(name: str) -> Step | None:
    """A step by its name; None where there is none, as in the journal of another version."""
    return next((step for step in STEPS if step.name == name), None)


def check(name: t.Any) -> None:
    """Refuse an unknown step.

    Raises:
        FleetError: with the known ones.
    """
    if find(str(name)) is None:
        raise FleetError(f"{name!r} is no step of a rollout; valid are {', '.join(step.name for step in STEPS)}.")


def label(name: str) -> str:
    """A step's label."""
    step = find(name)
    return step.label if step else name.replace("_", " ")


def is_out(name: str) -> bool:
    """Whether the instance cannot serve in a step."""
    step = find(name)
    return bool(step and step.out)


def is_of_balancer(name: str) -> bool:
    """Whether a step is one of the whole host at its target groups."""
    step = find(name)
    return bool(step and step.balancer)


def follows_change(name: str) -> bool:
    """Whether a step follows those in which the instance is out: then another instance may be next."""
    changed = [step.out for step in STEPS]
    last = max((number for number, out in enumerate(changed) if out), default=-1)
    return name in [step.name for step in STEPS[last + 1 :]]
