"""Scheduled events in DescribeInstanceStatus, which moto never has."""

from __future__ import annotations

import typing as t

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance

ATTRIBUTE = "lab_events"


def install() -> None:
    """Give instances the attribute that DescribeInstanceStatus reads."""

    def events(self: Instance) -> list[dict[str, t.Any]]:
        found: list[dict[str, t.Any]] = getattr(self, ATTRIBUTE, [])
        return found

    setattr(Instance, "events", property(events))  # noqa: B010 - a part of moto's class


def announce(instance_id: str, events: list[dict[str, t.Any]]) -> bool:
    """Set the events of an instance; False where there is no such instance."""
    for regions in list(ec2_backends.values()):
        for backend in list(regions.values()):
            instance = backend.get_instance_by_id(instance_id)
            if instance is not None:
                setattr(instance, ATTRIBUTE, events)
                return True
    return False
