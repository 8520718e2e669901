# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The traffic driver's configuration. It needs no library, so that stopping a driver needs none either."""

from __future__ import annotations

import dataclasses
import json
import os

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


@dataclasses.dataclass(frozen=True)
class Config:
    """What to send, where, and until when.

    Attributes:
        url: base URL, with or without ``/v1``.
        api_key: sent as a Bearer token; none when empty.
        model: the served model name.
        output: path of the report; the process is recorded in a file beside it, see pid_path().
        owner_pid: the process whose end ends the driver; None for none.
        streams: how many clients stream.
        requests_per_second: short requests.
        stream_prompt, stream_tokens, ignore_eos: of the streaming clients.
        request_prompt, request_tokens: of the short requests.
        timeout: seconds of silence after which a request or stream has failed.
        grace: seconds for streams to finish after SIGTERM.
        max_seconds: how long it runs at most.
        ca_path: certificates to trust for https; the system's when None.
        validate_certs: False accepts any certificate.
    """

    url: str
    model: str
    output: str
    api_key: str = ""
    owner_pid: int | None = None
    streams: int = 4
    requests_per_second: float = 2.0
    stream_prompt: str = "Count without end."
    stream_tokens: int = 200
    ignore_eos: bool = True
    request_prompt: str = "What is the capital of France? Answer with one word."
    request_tokens: int = 16
    timeout: float = 60.0
    grace: float = 30.0
    max_seconds: float = 4 * 3600.0
    ca_path: str | None = None
    validate_certs: bool = True


def read_config(text: str) -> Config:
    """The configuration in a JSON document.

    Raises:
        FleetError: it is invalid. The message does not repeat it.
    """
    try:
        config = Config(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise FleetError(f"The traffic driver's configuration is not one ({type(error).__name__}).") from None
    if not (config.api_key.isascii() and config.api_key.isprintable()):
        raise FleetError("api_key holds characters that no HTTP header can carry.")
    if config.streams < 0 or config.requests_per_second < 0 or config.streams + config.requests_per_second == 0:
        raise FleetError(
            f"streams is {config.streams} and requests_per_second is {config.requests_per_second:g}. Neither can be "
            "negative, and one has to be more than 0."
        )
    if not os.path.isabs(config.output):
        raise FleetError(f"output is {config.output}, which is no absolute path.")
    if config.timeout <= 0 or config.grace < 0 or config.max_seconds <= 0:
        raise FleetError("timeout and max_seconds have to be more than 0, and grace not less.")
    return config


def pid_path(output: str) -> str:
    """The pid file of the driver that writes ``output``, as ``{"pid": …, "started": clock ticks}``."""
    return f"{output}.pid"
