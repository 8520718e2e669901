# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A client's limits: validated, stored, shown and documented by the rows of schema.py. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Kind, Limit
from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


class _Count:
    """A whole number; None for no limit."""

    spec: t.ClassVar[dict[str, t.Any]] = {"type": "int"}
    empty: t.ClassVar[t.Any] = None

    def check(self, row: Limit, value: t.Any, client: str) -> t.Any:
        """A user's value, as it is stored.

        Raises:
            FleetError: it is invalid.
        """
        if isinstance(value, bool) or not isinstance(value, int) or value < row.least:
            raise FleetError(
                f"{row.name} of client {client} is {keys.shown(value)}. Give a whole number of {row.least} or more, "
                "or leave it out for no limit; remove the client to lock it out."
            )
        return value

    def read(self, value: t.Any) -> t.Any:
        """A stored value.

        Raises:
            TypeError, ValueError: it is invalid. The error does not repeat it.
        """
        # In Python a bool is an int, too.
        if type(value) is not int:
            raise TypeError
        return value

    def text(self, value: t.Any) -> str:
        """As one word, or several."""
        return str(value)

    def parse(self, text: str) -> t.Any:
        """What text() wrote, not yet parsed."""
        return int(text)

    def brief(self, row: Limit, value: t.Any, _limits: Limits, _short: bool) -> str:
        """In a few words, for a person."""
        return f"{value} {row.unit}"


class _Amount(_Count):
    """A number; None for no limit."""

    spec: t.ClassVar[dict[str, t.Any]] = {"type": "float"}

    def check(self, row: Limit, value: t.Any, client: str) -> t.Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise FleetError(
                f"{row.name} of client {client} is {keys.shown(value)}. Give a number above 0, or leave it out for no "
                "limit."
            )
        return value

    def read(self, value: t.Any) -> t.Any:
        if type(value) not in (int, float):
            raise TypeError
        return value

    def parse(self, text: str) -> t.Any:
        return float(text)

    def brief(self, row: Limit, value: t.Any, limits: Limits, _short: bool) -> str:
        period = next((one for one in schema.LIMITS if one.period_of == row.name), None)
        return f"{row.name} {value:g}" + (f" per {limits.get(period.name) or 'life'}" if period else "")


class _Period(_Count):
    """A duration; empty for none."""

    spec: t.ClassVar[dict[str, t.Any]] = {"type": "str"}
    empty: t.ClassVar[t.Any] = ""

    def check(self, row: Limit, value: t.Any, client: str) -> t.Any:
        what = f"{row.name} of client {client}"
        if times.duration(str(value), what) < row.least:
            raise FleetError(f"{what} is {keys.shown(value)}. Give at least {times.spoken(row.least)}, such as 30d.")
        return str(value)

    def read(self, value: t.Any) -> t.Any:
        if not isinstance(value, str):
            raise TypeError
        return value

    def parse(self, text: str) -> t.Any:
        return text

    def brief(self, row: Limit, value: t.Any, limits: Limits, _short: bool) -> str:
        # The message names the limit.
        return "" if limits.get(row.period_of) else f"{row.name} {value}"


class _Moment(_Period):
    """A moment in UTC; empty for none."""

    def check(self, row: Limit, value: t.Any, client: str) -> t.Any:
        # A past moment is no error: it would block every other client's change.
        return times.check_moment(str(value), f"{row.name} of client {client}")

    def read(self, value: t.Any) -> t.Any:
        try:
            times.seconds(super().read(value))
        except ValueError:
            # The error's own text repeats the value.
            raise ValueError from None
        return value

    def brief(self, row: Limit, value: t.Any, _limits: Limits, short: bool) -> str:
        if not short:
            return f"until {value}"
        return f"until {value[:10] if value.endswith('T00:00:00Z') else value[:16].replace('T', ' ')}"


class _Models(_Count):
    """Names; none for no limit."""

    spec: t.ClassVar[dict[str, t.Any]] = {"type": "list", "elements": "str", "default": []}
    empty: t.ClassVar[t.Any] = ()

    def check(self, row: Limit, value: t.Any, client: str) -> t.Any:
        if not isinstance(value, (list, tuple)):
            raise FleetError(f"{row.name} of client {client} is {keys.shown(value)}. Give a list.")
        return keys.check_model_names(value, client)

    def read(self, value: t.Any) -> t.Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise TypeError
        return tuple(value)

    def text(self, value: t.Any) -> str:
        return " ".join(value)

    def parse(self, text: str) -> t.Any:
        return sorted(text.split())

    def brief(self, row: Limit, value: t.Any, _limits: Limits, short: bool) -> str:
        return f"only {len(value)} {row.name}" if short and len(value) > 1 else f"only {', '.join(value)}"


_KINDS: dict[Kind, _Count] = {
    Kind.COUNT: _Count(),
    Kind.AMOUNT: _Amount(),
    Kind.PERIOD: _Period(),
    Kind.MOMENT: _Moment(),
    Kind.MODELS: _Models(),
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a client.

    Attributes:
        values: by the limits' names. A limit that is missing is not set.
    """

    values: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    def get(self, name: str) -> t.Any:
        """One limit; None, or an empty text or tuple, where it is not set."""
        return self.values.get(name, _KINDS[row_of(name).kind].empty)

    def only(self, rows: t.Collection[Limit]) -> Limits:
        """The limits of some rows."""
        names = [row.name for row in rows]
        return Limits({name: value for name, value in self.values.items() if name in names})


def row_of(name: str) -> Limit:
    """A limit's row.

    Raises:
        KeyError: there is none with this name.
    """
    for row in schema.LIMITS:
        if row.name == name:
            return row
    raise KeyError(name)


def spec() -> dict[str, dict[str, t.Any]]:
    """The options of a client in an argument spec, without its name."""
    # Ansible takes every option with `token` in its name for a secret, unless the option says otherwise.
    return {row.name: {**_KINDS[row.kind].spec, "no_log": False} for row in schema.LIMITS}


def documentation() -> dict[str, dict[str, t.Any]]:
    """The same options with their descriptions."""
    return {row.name: {"description": [row.description], **_KINDS[row.kind].spec} for row in schema.LIMITS}


def check(item: t.Mapping[str, t.Any]) -> Limits:
    """The limits of a client from a user or module api_key.

    Raises:
        FleetError: some of them are invalid.
    """
    found, wrong = _checked(item)
    if wrong:
        raise FleetError(" ".join(wrong))
    return found


def problems(item: t.Mapping[str, t.Any]) -> list[str]:
    """The errors in a client's limits, each with client, limit and value."""
    return _checked(item)[1]


def _checked(item: t.Mapping[str, t.Any]) -> tuple[Limits, list[str]]:
    values, wrong = {}, []
    for row in schema.LIMITS:
        given, kind = item.get(row.name), _KINDS[row.kind]
        if given is None or given == kind.empty or (row.kind is Kind.MODELS and not given):
            continue
        try:
            values[row.name] = kind.check(row, given, item["name"])
        except FleetError as error:
            wrong.append(error.message)
    return Limits(values), wrong


def read(item: t.Mapping[str, t.Any]) -> Limits:
    """The limits that document() wrote.

    Raises:
        KeyError, TypeError, ValueError: they are invalid.
    """
    values = {}
    for name, value in item.items():
        kind = row_of(name).kind
        if value != _KINDS[kind].empty and not (kind is Kind.MODELS and value == []):
            values[name] = _KINDS[kind].read(value)
    return Limits(values)


def of(item: t.Mapping[str, t.Any]) -> Limits:
    """The limits in a document that has shown() as a part.

    Raises:
        TypeError, ValueError: one of them is invalid.
    """
    return read({row.name: item[row.name] for row in schema.LIMITS if item.get(row.name) is not None})


def document(limits: Limits) -> dict[str, t.Any]:
    """The limits as JSON values, without those that are not set."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in limits.values.items()}


def shown(limits: Limits) -> dict[str, t.Any]:
    """Every limit, including those that are not set."""
    empty = Limits({row.name: _KINDS[row.kind].empty for row in schema.LIMITS})
    return {**document(empty), **document(limits)}


def brief(limits: Limits, short: bool = False) -> list[str]:
    """Each limit in a few words.

    Args:
        limits: the limits.
        short: whether it must fit a table.
    """
    given = [(row, limits.values[row.name]) for row in schema.LIMITS if row.name in limits.values]
    # Long values come last.
    given.sort(key=lambda one: one[0].kind is Kind.MODELS)
    return list(filter(None, (_KINDS[row.kind].brief(row, value, limits, short) for row, value in given)))


def texts(limits: Limits) -> dict[str, str]:
    """Each limit as a text; models are space-separated."""
    return {name: _KINDS[row_of(name).kind].text(value) for name, value in limits.values.items()}


def read_texts(found: t.Mapping[str, str]) -> Limits:
    """The limits that texts() wrote.

    Raises:
        KeyError, TypeError, ValueError: they are invalid.
    """
    return read({name: _KINDS[row_of(name).kind].parse(text) for name, text in found.items()})


def version(*used: Limits) -> int:
    """The version of the first key store that supports all limits in use."""
    return max([1, *(row_of(name).since for limits in used for name in limits.values)])


def latest_version() -> int:
    """The version of a key store that supports every limit."""
    return max([1, *(row.since for row in schema.LIMITS)])
