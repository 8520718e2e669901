# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The tags of a client's secret in AWS Secrets Manager. Pure.

A tag has at most 128 characters of name and 256 of value, of letters, digits, spaces and ``+-=._:/@``; a secret has at
most 50. A tag about a key names its version, or its hash where the version may be gone.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.core import keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import document as key_document
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    PREVIOUS,
    ClientKeys,
    Key,
    RetiredKey,
    retire,
)

#: The prefix of our tags.
OWN = "inference-fleet:"
#: Marks a secret as ours, with the client of its key.
CLIENT = f"{OWN}client"

_ACTIVATED = f"{OWN}activated:"
_RETIRE_AT = f"{OWN}retire_at:"
_RETIRED = f"{OWN}retired:"

_MAX_TAGS = 50
_MAX_VALUE = 256
_NAME = re.compile(r"[\w .:/=+@-]{1,128}")
_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_NOTHING = "-"


def of(name: str, whole: ClientKeys) -> dict[str, str]:
    """Our tags of a client's secret."""
    tags = {CLIENT: name}
    for limit, text in client_limits.texts(whole.limits).items():
        for number, line in enumerate(_lines(text.split())):
            tags[f"{OWN}{limit}.{number}" if number else f"{OWN}{limit}"] = line
    for slot, key in whole.slots():
        if key.activated:
            tags[f"{_ACTIVATED}{key.id}"] = key.activated
        if slot == PREVIOUS and key.retire_at:
            tags[f"{_RETIRE_AT}{key.id}"] = key.retire_at
    for dead in [*whole.retired, *(retire(name, key) for _slot, key in whole.slots() if key.retired)]:
        words = [dead.created, dead.activated or _NOTHING, dead.retired]
        words += [word for word in ("compromised", "proven") if getattr(dead, word)]
        tags[f"{_RETIRED}{dead.sha256}"] = " ".join(words)
    return tags


def client(name: str, tags: t.Mapping[str, str], current: Key, pending: Key | None, previous: Key | None) -> ClientKeys:
    """The client of a secret with these tags and keys.

    Raises:
        KeyError, TypeError, ValueError: one of our tags differs from those of of().
    """
    dead = {key.sha256: key for key in map(_retired(name), _named(tags, _RETIRED).items())}
    if previous:
        retired = dead.get(previous.sha256)
        previous = dataclasses.replace(
            previous,
            # An interrupted completion may have removed the first of the two.
            activated=tags.get(f"{_ACTIVATED}{previous.id}", retired.activated if retired else ""),
            retire_at=tags.get(f"{_RETIRE_AT}{previous.id}", ""),
            retired=retired.retired if retired else "",
            compromised=bool(retired and retired.compromised),
        )
    # The tag of a key that is not the previous one was set by a step that was interrupted before it moved the labels.
    here = {key.sha256 for key in (current, pending, previous) if key}
    return ClientKeys(
        current=dataclasses.replace(current, activated=tags.get(f"{_ACTIVATED}{current.id}", "")),
        pending=pending,
        previous=previous,
        limits=_limits(tags),
        retired=tuple(
            sorted((key for key in dead.values() if key.sha256 not in here), key=lambda key: (key.retired, key.sha256))
        ),
    )


def key(item: t.Mapping[str, t.Any], version: str) -> Key:
    """The key in a version's value.

    Raises:
        KeyError, TypeError, ValueError: it is invalid.
    """
    return key_document.key({"id": version, **{name: item[name] for name in ("key", "created", "rotation")}})


def listed(tags: t.Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in AWS's form."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def check(tags: t.Mapping[str, t.Any], name: str = "") -> None:
    """Check that AWS accepts these tags.

    Args:
        tags: the tags.
        name: the client of the tags; empty for the user's own.

    Raises:
        FleetError: it would not.
    """
    if len(tags) > _MAX_TAGS:
        raise FleetError(
            f"The secret of client {name} would have {len(tags)} tags; AWS allows {_MAX_TAGS}. Give it fewer models, "
            "or remove tags of your own."
        )
    for tag, value in tags.items():
        if not _NAME.fullmatch(tag) or not _VALUE.fullmatch(str(value)) or (not name and tag.startswith((OWN, "aws:"))):
            raise FleetError(
                f"tags has {keys.shown(tag)}, which cannot be a tag of a secret. Names have 1 to 128, values up to "
                f"256 letters, digits, spaces and + - = . _ : / @, and do not begin with aws: or {OWN}"
            )


def _limits(tags: t.Mapping[str, str]) -> client_limits.Limits:
    found = {}
    for row in schema.LIMITS:
        lines = {tail: text for tail, text in _named(tags, f"{OWN}{row.name}").items() if tail[:1] in ("", ".")}
        if lines:
            found[row.name] = " ".join(lines[tail] for tail in sorted(lines, key=lambda tail: int(tail[1:] or 0)))
    return client_limits.read_texts(found)


def _retired(name: str) -> t.Callable[[tuple[str, str]], RetiredKey]:
    def parse(item: tuple[str, str]) -> RetiredKey:
        sha256, words = item[0], item[1].split()
        created, activated, retired, *flags = words
        document = {
            "client": name,
            "sha256": sha256,
            "created": created,
            "activated": "" if activated == _NOTHING else activated,
            "retired": retired,
            **{flag: True for flag in flags},
        }
        return key_document.retired_key(document)

    return parse


def _named(tags: t.Mapping[str, str], beginning: str) -> dict[str, str]:
    return {tag[len(beginning) :]: value for tag, value in tags.items() if tag.startswith(beginning)}


def _lines(words: t.Iterable[str]) -> list[str]:
    """The words in as few tags' values as possible."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= _MAX_VALUE:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines
