# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What bounds a client: one row for each limit.

Argument specs and their documentation, validation, the key store with its tags, the value in the edge's map, the
gateways' file, LiteLLM's rows and the table in docs/operations.md follow from these rows. A limit of a new kind also
needs its kind in limits.py, and one that edges enforce the lines in HAProxy's configuration that do it.

Gateways have a copy of this file as client_schema.py, so it imports the standard library alone.
"""

from __future__ import annotations

import dataclasses
import enum

#: The version of the gateways' file. A further limit does not change it: a gateway takes the limits that it knows.
GATEWAYS_FILE_VERSION = 1


class Kind(enum.Enum):
    """How a limit's value looks; limits.py has what follows from it."""

    COUNT = "a whole number"
    AMOUNT = "a number"
    PERIOD = "a duration"
    MOMENT = "a day or a moment"
    MODELS = "a list of models"


class Enforcer(enum.Enum):
    """Where a limit holds."""

    EDGE = "each edge"
    GATEWAY = "the gateways together"
    BOTH = "each edge; the gateways together"


@dataclasses.dataclass(frozen=True)
class LiteLLM:
    """The names under which LiteLLM has a limit; empty where it has none.

    Attributes:
        caller: of what authentication returns of a caller.
        team: the same, counted for the caller's team.
        team_column: of a team's row in its database.
        key_column: of a key's row.
    """

    caller: str = ""
    team: str = ""
    team_column: str = ""
    key_column: str = ""


@dataclasses.dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: in ``fleet_clients``, the modules' options and the key store.
        kind: how its value looks.
        enforcer: where it holds.
        description: what it bounds, as a sentence.
        example: a value, as YAML has it.
        least: the smallest number, or the shortest duration in seconds.
        unit: what stands behind the number in few words.
        period_of: of a duration, the limit that it is for.
        edge_field: its place behind the client's name in the value of the edge's map. Never given to another limit.
            What gateways count together is there for the accountant of those that are HAProxy alone.
        gateway_name: in the gateways' file, where that has another form of it.
        litellm: its names there.
        since: the version of the key store that has it first. A new limit has the next one, so that an earlier
            collection refuses a store in which it is used instead of losing it.
    """

    name: str
    kind: Kind
    enforcer: Enforcer
    description: str
    example: str
    least: int = 1
    unit: str = ""
    period_of: str = ""
    edge_field: int = 0
    gateway_name: str = ""
    litellm: LiteLLM = LiteLLM()
    since: int = 1

    @property
    def in_gateways_file(self) -> str:
        """Its name in the gateways' file; empty where gateways do not enforce it."""
        return "" if self.enforcer is Enforcer.EDGE else self.gateway_name or self.name

    @property
    def is_counted(self) -> bool:
        """Whether gateways count what is used of it, for all of them together."""
        return self.enforcer is not Enforcer.EDGE and self.kind in (Kind.COUNT, Kind.AMOUNT)


LIMITS: tuple[Limit, ...] = (
    Limit(
        "models",
        Kind.MODELS,
        Enforcer.BOTH,
        "The only models that the client may use, as requests name them.",
        "[Qwen/Qwen3-VL-8B-Instruct]",
        edge_field=4,
        litellm=LiteLLM(team_column="models", key_column="models"),
    ),
    Limit(
        "requests_per_minute",
        Kind.COUNT,
        Enforcer.BOTH,
        "The most requests a minute, with all keys of the client.",
        "600",
        unit="requests/min",
        edge_field=1,
        litellm=LiteLLM("rpm_limit", "team_rpm_limit", "rpm_limit"),
    ),
    Limit(
        "max_concurrent",
        Kind.COUNT,
        Enforcer.BOTH,
        "The most requests in flight.",
        "8",
        unit="at once",
        edge_field=2,
        # There is no such limit of a team, so each of a client's two keys has its own; the edge's is for both.
        litellm=LiteLLM("max_parallel_requests", team_column="max_parallel_requests"),
    ),
    Limit(
        "expires",
        Kind.MOMENT,
        Enforcer.BOTH,
        "The day (its beginning in UTC) or the moment from which on the client is refused.",
        "2027-01-31",
        edge_field=3,
        litellm=LiteLLM(key_column="expires"),
    ),
    Limit(
        "tokens_per_minute",
        Kind.COUNT,
        Enforcer.GATEWAY,
        "The most tokens a minute.",
        "200000",
        unit="tokens/min",
        edge_field=5,
        litellm=LiteLLM("tpm_limit", "team_tpm_limit", "tpm_limit"),
    ),
    Limit(
        "budget",
        Kind.AMOUNT,
        Enforcer.GATEWAY,
        "What the client's requests may cost, in the unit of the models' prices.",
        "50",
        edge_field=6,
        litellm=LiteLLM(team_column="max_budget"),
    ),
    Limit(
        "budget_period",
        Kind.PERIOD,
        Enforcer.GATEWAY,
        "How long the budget is for. Without it, for ever.",
        "30d",
        least=60,
        period_of="budget",
        edge_field=7,
        gateway_name="budget_seconds",
        litellm=LiteLLM(team_column="budget_duration"),
    ),
)
