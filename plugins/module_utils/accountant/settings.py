# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The accountant's settings, in the file that module gateway_accountant writes."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ACCOUNTANT_SETTINGS, STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy_socket
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import KEYS_MAP_PATH

CONFIG_PATH = ACCOUNTANT_SETTINGS
#: Within the directory that HAProxy is confined to.
SOCKET_DIRECTORY = "/var/lib/haproxy/accountant"


@dataclasses.dataclass(frozen=True)
class AccountantSettings:
    """The settings.

    Attributes:
        gateways: how many of this kind there are.
        prices: of a token of the prompt and of the answer, by model.
        redis_url: of the gateways' Redis; empty for none.
        patience: seconds that a request takes at most.
        keys_map: the edge's map of keys, with the clients' limits.
        directory: of the sockets for HAProxy.
        group: HAProxy's.
        socket: HAProxy's.
        state: the file for what must be remembered.
        metrics: the text file of metrics.
    """

    gateways: int = 1
    prices: t.Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    redis_url: str = dataclasses.field(default="", repr=False)
    patience: float = 3600.0
    keys_map: str = KEYS_MAP_PATH
    directory: str = SOCKET_DIRECTORY
    group: str = "haproxy"
    socket: str = haproxy_socket.SOCKET
    state: str = f"{STATE_DIRECTORY}/accountant.json"
    metrics: str = f"{STATE_DIRECTORY}/metrics/accountant.prom"

    def render(self) -> str:
        """The file's text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


def read_settings(path: str) -> AccountantSettings:
    """The settings in a file.

    Raises:
        FleetError: there is none, or it is something else.
    """
    document = read_json(path)
    if document is None:
        raise FleetError(f"{path} does not exist. Run playbooks/site.yml for this host.")
    try:
        prices = {str(model): (float(read), float(write)) for model, (read, write) in document["prices"].items()}
        return AccountantSettings(**{**document, "prices": prices})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise FleetError(
            f"{path} is not what module gateway_accountant writes: {error}. Run site.yml again."
        ) from error
