# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Watch a change with test traffic
description:
  - Starts and stops a driver that sends chat completions, streamed and not, while the fleet changes, and reports each
    failed request, each interrupted stream, and the longest gap.
  - The driver never retries a request. A connection that the server closed before a request was sent on it is replaced,
    as every client does.
  - A stream is complete when it had its finish reason and C([DONE]), and no error event.
  - Runs on the controller, whichever host the task is for. The driver keeps running after the task, and exits when
    O(owner_pid) is gone.
  - Ignores the environment's proxies.
requirements:
  - aiohttp 3.11 or later, on the controller, for O(state=started)
attributes:
  check_mode:
    support: full
    description: Neither starts nor stops the driver.
  diff_mode:
    support: none
    description: There is no state to compare.
options:
  state:
    description:
      - V(started) starts the driver and waits for its first answer. A driver that runs with the same O(path) is kept.
      - V(stopped) stops it and returns its report, also of one that has exited already.
      - V(read) returns the current report.
    type: str
    required: true
    choices: [started, stopped, read]
  path:
    description:
      - The report, a JSON file, written every second. Its directory is made.
      - The driver's pid and its log are beside it, with C(.pid) and C(.log) at the end.
    type: path
    required: true
  url:
    description: Base URL of an OpenAI-compatible server, with or without C(/v1). Needed with O(state=started).
    type: str
  api_key:
    description: The key to send, if any.
    type: str
  model:
    description: The served model name. Needed with O(state=started).
    type: str
  owner_pid:
    description: The process, such as ansible-playbook, whose end ends the driver. Needed with O(state=started).
    type: int
  streams:
    description: How many clients stream, each one answer after the other.
    type: int
    default: 4
  requests_per_second:
    description: Short requests, sent on schedule whatever the result of earlier ones.
    type: float
    default: 2
  stream_prompt:
    description: The prompt of the streaming clients.
    type: str
    default: Count without end.
  stream_tokens:
    description: The length of a streamed answer.
    type: int
    default: 200
  ignore_eos:
    description: Let the engine ignore the end of a streamed answer; for servers that refuse the option, V(false).
    type: bool
    default: true
  request_prompt:
    description: The prompt of the short requests.
    type: str
    default: What is the capital of France? Answer with one word.
  request_tokens:
    description: The maximum length of the answer to a short request.
    type: int
    default: 16
  timeout:
    description: Seconds of silence after which a request or stream has failed.
    type: float
    default: 60
  grace:
    description: Seconds for streams in flight to finish when the driver is stopped.
    type: float
    default: 30
  max_seconds:
    description: How long the driver runs at most.
    type: float
    default: 14400
  ca_path:
    description: Certificates to trust for https; by default the system's.
    type: path
  validate_certs:
    description: Whether to verify the server's certificate.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Watch the rollout
  inference.fleet.traffic:
    state: started
    path: /var/lib/traffic/traffic.json
    url: http://inference-1:8000
    api_key: "{{ key }}"
    model: Qwen/Qwen3-VL-8B-Instruct
    owner_pid: "{{ playbook_pid }}"
  run_once: true

- name: End the watch
  inference.fleet.traffic:
    state: stopped
    path: /var/lib/traffic/traffic.json
  run_once: true
  register: watch
"""

RETURN = r"""
path:
  description: The report's path.
  returned: success
  type: str
pid:
  description: The driver's pid; 0 when it does not run.
  returned: success
  type: int
running:
  description: Whether the driver runs.
  returned: success
  type: bool
complete:
  description: Whether the report is the last one, written at the driver's own end. False also where it was killed.
  returned: success
  type: bool
report:
  description:
    - What the driver saw, null where there is no report. All moments are Unix times, all durations seconds.
    - C(requests) counts the short requests, C(sent), C(ok), C(failed), C(in_flight) and, because too many were in
      flight, C(skipped).
    - C(streams) counts the streamed ones, C(begun), C(whole), C(failed) (the server did not begin to answer), C(cut)
      (it did, and did not come to the end) and C(in_flight).
    - C(errors) has the first 200, each with C(at), C(kind) (V(request) or V(stream)), C(what) and C(seconds).
      C(error_counts) has all, by C(kind) and a short name.
    - C(longest_gap) is the longest time in which no client received anything of an answer, C(longest_stream_stall) the
      longest time one stream waited for its next piece. Both have C(seconds), and C(at), when it began.
    - C(latency) is of the short requests, C(first_token) of the streams.
    - C(seconds) is a row of buckets, each C(bucket_seconds) long, with C(at), C(ok), C(failed), C(tokens) and the most
      C(in_flight) at a time.
    - C(ended_because) is V(stopped), V(owner_gone), V(max_seconds), V(no_first_answer) or V(internal_error).
    - C(driver) has the driver's own C(cpu_seconds), and C(longest_lag), for how long the machine did not let it run.
      Gaps and times of that length are not the server's.
  returned: success
  type: dict
  sample:
    began: 1795000000.1
    ended: 1795000300.2
    ended_because: stopped
    requests: {sent: 600, ok: 600, failed: 0, in_flight: 0, skipped: 0}
    streams: {begun: 60, whole: 59, failed: 0, cut: 1, in_flight: 0}
    errors:
      - {at: 1795000100.5, kind: stream, what: "cut after 37 tokens: connection reset", seconds: 2.1}
    error_counts: {request: {}, stream: {cut (connection reset): 1}}
    longest_gap: {seconds: 0.4, at: 1795000100.2}
"""
