#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: chat_smoke
short_description: Gate an LLM server on real chat completions
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
description:
  - Sends an OpenAI-compatible server a few requests whose answers are known, and fails unless all of them are right.
  - It checks streamed and whole text, an image, finish reasons, usage, speed, and that wrong keys are refused.
    C(/health) is never used, because it does not depend on answers.
  - It also fails without evidence. No answer, no usage, no checks are failures.
  - A server that is not ready (no connection, no answer in time, 408, 425, 429, 502, 503, 504) is retried, at most
    O(attempts) times and within O(deadline); C(Retry-After) is honoured up to 30 seconds.
  - An answer must belong to its request. Each prompt begins with a nonce; an answer that was seen before, that was
    generated before its request, or that a cache marks as its own is refused.
  - A wrong answer, a broken stream or a 500 is not retried. Half of the clients would meet the other half.
attributes:
  check_mode:
    description: The requests are sent in check mode, too; O(record) is not written.
    support: full
  diff_mode:
    description: It never changes anything.
    support: none
options:
  url:
    description:
      - Base URL of the server, with or without C(/v1).
      - Needed unless O(targets) or O(instances) is given.
    type: str
  name:
    description: The server's name in messages.
    type: str
    default: gate
  model:
    description: The served model name.
    type: str
    required: true
  api_key:
    description:
      - The key to send. With neither this nor O(api_key_file) the checks V(wrong_key) and V(no_key) are skipped.
    type: str
  api_key_file:
    description: A file on the host with the key, bare or as C(ENGINE_API_KEY=...).
    type: path
  checks:
    description:
      - The checks, in this order.
      - V(models) requires O(model) in the list of models, because SGLang answers to any model name.
      - V(text) and V(stream) send O(prompt_text), whole and streamed.
      - V(image) sends O(prompt_image) with a square of each colour in O(expect_image). Leave it out for text models.
      - V(schema) allows with a JSON schema only a word that is random for this request. It needs the engine's grammar
        backend, and no cache can know the answer.
      - V(speed) streams O(speed_tokens) tokens, or some more, and measures; see O(max_slowdown).
      - V(drafts) streams 512 tokens and reads the engine's counters, so it is for an engine's own port; see
        O(min_draft_share). Use it for engines that have a draft model.
      - V(local_files) requires that every image, video and audio URL that names a file of the host is refused, in the
        same words for an existing file and for a missing one.
      - V(wrong_key) and V(no_key) require a 401.
      - The capabilities are for an engine's own port before traffic comes, because each is compiled or loaded on first
        use, and an engine without a compiler may exit on it. The model's text does not matter. V(logprobs) and
        V(prompt_logprobs) require finite probabilities, V(sampling) two sampled answers, V(long_prompt) an answer to
        more than is prefilled at once, V(tools) a complete stream where a tool may be called, V(forced_tool) a call of
        the required tool. Engines that were started without tools pass the last two.
    type: list
    elements: str
    choices:
      - models
      - text
      - stream
      - image
      - schema
      - logprobs
      - prompt_logprobs
      - sampling
      - long_prompt
      - tools
      - forced_tool
      - speed
      - drafts
      - local_files
      - wrong_key
      - no_key
    default: [models, text, stream, image, schema, speed, local_files, wrong_key, no_key]
  prompt_text:
    description: The prompt of the checks V(text) and V(stream).
    type: str
    default: What is the capital of France? Answer with one word.
  expect_text:
    description:
      - Right answers to O(prompt_text); case, punctuation and spaces do not matter.
      - With none and no O(expect_text_regex), any answer that is not empty and does not repeat itself is right.
    type: list
    elements: str
    default: [Paris]
  expect_text_regex:
    description: A regular expression that a right answer to O(prompt_text) matches somewhere, regardless of case.
    type: str
  prompt_image:
    description: The prompt about each square.
    type: str
    default: What colour is the square? Answer with one word.
  expect_image:
    description:
      - The right answers for each colour; an empty list accepts any.
      - A colour is V(red), V(green), V(blue), V(yellow), V(black), V(white) or C(#rrggbb). More than one, because an
        engine that ignores its images may guess one.
    type: dict
    default: {red: [red], blue: [blue]}
  image_size:
    description: The edge of the square in pixels.
    type: int
    default: 64
  prompt_speed:
    description: The prompt of the check V(speed).
    type: str
    default: Count without end.
  speed_tokens:
    description: How many tokens the check V(speed) generates.
    type: int
    default: 64
  max_tokens:
    description: Limit of every other answer.
    type: int
    default: 32
  timeout:
    description: Seconds for a whole request.
    type: float
    default: 60
  deadline:
    description: Seconds for all checks of one server, with their retries.
    type: float
    default: 300
  attempts:
    description: Attempts of a check while the server is not ready, or too slow.
    type: int
    default: 3
  max_slowdown:
    description:
      - How many times slower than the last good figures the check V(speed) may be, in time to the first token and in
        tokens per second. V(0) disables the comparison.
      - It is measured again, up to O(attempts) times, before it fails.
    type: float
    default: 2.0
  no_cache:
    description:
      - Make LiteLLM bypass its cache, for reading and for writing. This is always so for gateways in O(instances).
        Engines ignore the parameters.
    type: bool
    default: false
  judge_speed:
    description:
      - Whether the check V(speed) compares at all. That makes sense only on an engine's own port while it is drained,
        against figures that were taken there; through an edge or a gateway they depend on other traffic.
      - Defaults to V(true) for O(instances), other than gateways, and to V(false) for anything else.
    type: bool
  slowdown_grace_ms:
    description: A time to the first token that grew by no more than this is not slow, whatever the ratio.
    type: float
    default: 200
  min_draft_share:
    description:
      - The share of a draft model's proposals that the model must accept, from 0 to 1, in the check V(drafts). A
        rejected proposal costs time, so that below some share the answers are slower than without drafts.
    type: float
    default: 0.3
  baseline:
    description:
      - The last good figures, as C(ttft_ms) and C(tokens_per_second) in a dictionary, or the path on the host of a JSON
        file with them, such as a O(record).
      - Defaults to O(record). A file that does not exist yet, or has figures of another model, is no baseline.
    type: raw
  record:
    description:
      - A path on the host where the result is written as JSON, atomically, with the last good figures; its directory is
        created. Writing it does not count as a change. A record that cannot be read or written causes a warning,
        because it has nothing to do with the target.
      - Not written in check mode or with O(expect_failure=true).
    type: path
  expect_failure:
    description: Succeed when the gate fails, and fail when it passes. Shows that the gate can fail.
    type: bool
    default: false
  expect_reason:
    description: With O(expect_failure=true), a RV(targets[].checks[].reason) that the failure must have.
    type: str
  targets:
    description:
      - Several servers, tested one after the other. Options that are missing here come from the module's own.
    type: list
    elements: dict
    suboptions:
      name:
        description: The server's name in messages.
        type: str
        required: true
      url:
        description: Base URL of the server.
        type: str
        required: true
      model:
        description: The served model name.
        type: str
      api_key:
        description: The key to send. Overrides the module's O(api_key) and O(api_key_file).
        type: str
      api_key_file:
        description: A file on the host with the key. Overrides the module's O(api_key) and O(api_key_file).
        type: path
      checks:
        description: The checks.
        type: list
        elements: str
        choices:
          - models
          - text
          - stream
          - image
          - schema
          - logprobs
          - prompt_logprobs
          - sampling
          - long_prompt
          - tools
          - forced_tool
          - speed
          - drafts
          - local_files
          - wrong_key
          - no_key
      attempts:
        description: Attempts of a check while the server is not ready, or too slow.
        type: int
      judge_speed:
        description: Whether the check V(speed) compares.
        type: bool
      no_cache:
        description: Whether to bypass LiteLLM's cache.
        type: bool
      replay:
        description:
          - Give each request the answer to the first one, like a cache with an incomplete key. Shows that the gate
            refuses stale answers. For checks that are not streamed.
        type: bool
        default: false
      baseline:
        description: The last good figures.
        type: raw
      record:
        description: Where the result is written; by default in O(record_dir).
        type: path
      expect_failure:
        description: Succeed when the gate fails.
        type: bool
      expect_reason:
        description: A reason that the failure must have.
        type: str
  instances:
    description:
      - Engine instances on this host, as M(inference.fleet.fleet_facts) gives them. Each becomes a
        target at its C(engine_port) on the loopback interface, named and recorded by its C(name), and asked for its
        C(served_name) where it has one.
    type: list
    elements: dict
  record_dir:
    description: Directory on the host for the records of O(instances) and O(targets).
    type: path
  ca_path:
    description: PEM file on the host with the certificates to trust for https; the system's by default.
    type: path
  validate_certs:
    description: Whether to verify certificates.
    type: bool
    default: true
seealso:
  - module: inference.fleet.fleet_status
"""

EXAMPLES = r"""
- name: Gate a host through its edge
  inference.fleet.chat_smoke:
    name: edge
    url: http://127.0.0.1:8000
    model: Qwen/Qwen3-VL-8B-Instruct
    api_key: "{{ gate_api_key }}"
    record: /var/lib/inference/gate/edge.json

- name: Gate a text model, whose answers are not known
  inference.fleet.chat_smoke:
    url: http://127.0.0.1:8000
    model: some/text-model
    api_key: "{{ gate_api_key }}"
    checks: [models, text, stream, speed, wrong_key, no_key]
    prompt_text: Say hello.
    expect_text: []

- name: Gate every instance of a host
  inference.fleet.chat_smoke:
    instances: "{{ engine_instances }}"
    model: Qwen/Qwen3-VL-8B-Instruct
    api_key_file: /etc/inference/engine_key.env
    record_dir: /var/lib/inference/gate

- name: Show that the gate can fail
  inference.fleet.chat_smoke:
    model: Qwen/Qwen3-VL-8B-Instruct
    attempts: 1
    expect_failure: true
    targets:
      - name: wrong key
        url: http://127.0.0.1:8000
        api_key: sk-this-key-was-never-made
        expect_reason: unauthorized
      - name: dead port
        url: http://127.0.0.1:9
        expect_reason: unreachable
      - name: cached answer
        url: http://127.0.0.1:8000
        api_key: "{{ gate_api_key }}"
        checks: [text, text]
        replay: true
        expect_reason: stale
"""

RETURN = r"""
msg:
  description: The requests, the results, and what to try; one line for each target that passed.
  returned: always
  type: str
passed:
  description: Whether every target had the wanted result.
  returned: always
  type: bool
attempts:
  description: The number of requests, including retries.
  returned: always
  type: int
record_problems:
  description: Why O(record) could not be read or written, apart from the target. Each is a warning, too.
  returned: always
  type: list
  elements: str
targets:
  description: One result for each target. With O(url) its content is at the top level instead.
  returned: with O(targets) or O(instances)
  type: list
  elements: dict
  contains:
    name:
      description: The target's name.
      type: str
    url:
      description: Its URL.
      type: str
    model:
      description: The requested model.
      type: str
    passed:
      description: Whether the gate passed, before O(expect_failure) applies.
      type: bool
    reason:
      description: The first failed check's reason.
      type: str
    figures:
      description:
        - C(ttft_ms) (to the first token), C(tokens_per_second) (after it), C(total_ms) and C(completion_tokens).
        - Beside them C(work_ms), which a fixed piece of work took on the host, its C(load) and C(processors), and the
          C(requests) that its edge had in flight.
      type: dict
    judged:
      description: Whether the figures were taken to be compared, see O(judge_speed).
      type: bool
    good:
      description: The figures that they were compared with.
      type: dict
    attempts:
      description: The number of requests, including retries.
      type: int
    seconds:
      description: How long it took.
      type: float
    not_asked:
      description: The checks that did not run after no answer at all, a refused key or a model that is not served.
      type: list
      elements: str
    skipped:
      description: The checks that were skipped because the gate has no key.
      type: list
      elements: str
    checks:
      description: The evidence, check by check.
      type: list
      elements: dict
      contains:
        name:
          description: The check.
          type: str
        passed:
          description: Whether it passed.
          type: bool
        seconds:
          description: How long its last attempt took.
          type: float
        reason:
          description:
            - Why it failed, only if it did. One of C(unreachable), C(timeout), C(deadline), C(status), C(unauthorized),
              C(key_accepted), C(model_missing), C(empty), C(wrong_answer), C(repetition), C(finish_reason),
              C(no_usage), C(stale), C(no_schema),
              C(not_capable), C(engine_ended), C(file_opened), C(truncated), C(malformed), C(slow), C(no_data).
          type: str
        asked:
          description: The request, in words, if it failed.
          type: str
        got:
          description: The result, if it failed.
          type: str
        try:
          description: What to do about it, if it failed.
          type: str
        attempts:
          description: If there was more than one, each attempt's reason, what came back, and its seconds.
          type: list
          elements: dict
        evidence:
          description: The answer with its finish reason, usage and times, the models, or the status.
          type: dict
checks:
  description: See RV(targets[].checks).
  returned: with O(url)
  type: list
  elements: dict
figures:
  description: See RV(targets[].figures).
  returned: with O(url)
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gate.conduct import gate, key_of, plan_of
from ansible_collections.inference.fleet.plugins.module_utils.gate.gate import CHECKS, DEFAULT_CHECKS
from ansible_collections.inference.fleet.plugins.module_utils.gate.targets import shortcoming, targets_of


def run(module: AnsibleModule) -> t.NoReturn:
    prepared = []
    for options in targets_of(module.params):
        key = key_of(options)
        if key is not None:
            # A key from a file is as secret as one from an option.
            module.no_log_values.add(key)
        prepared.append((options, plan_of(options, key)))
    results = [(options, gate(options, plan, module.check_mode)) for options, plan in prepared]
    for _options, result in results:
        for warning in result["record_problems"]:
            module.warn(warning)
    wrong = [message for options, result in results if (message := shortcoming(options, result))]
    messages = wrong or [result["message"] for _options, result in results]
    # The failure is in msg, which is printed in full; do not print it twice.
    targets = [{name: value for name, value in result.items() if name != "message"} for _options, result in results]
    output: dict[str, t.Any] = {"targets": targets} if module.params["url"] is None else targets[0]
    output.update(passed=not wrong, attempts=sum(result["attempts"] for result in targets))
    if wrong:
        module.fail_json(msg="\n".join(messages), **output)
    module.exit_json(changed=False, msg="\n".join(messages), **output)


def argument_spec() -> dict[str, t.Any]:
    checks = {"type": "list", "elements": "str", "choices": list(CHECKS)}
    key = {"type": "str", "no_log": True}
    key_file = {"type": "path", "no_log": False}
    return {
        "url": {"type": "str"},
        "name": {"type": "str", "default": "gate"},
        "model": {"type": "str", "required": True},
        "api_key": key,
        "api_key_file": key_file,
        "checks": {**checks, "default": list(DEFAULT_CHECKS)},
        "prompt_text": {"type": "str", "default": "What is the capital of France? Answer with one word."},
        "expect_text": {"type": "list", "elements": "str", "default": ["Paris"]},
        "expect_text_regex": {"type": "str"},
        "prompt_image": {"type": "str", "default": "What colour is the square? Answer with one word."},
        "expect_image": {"type": "dict", "default": {"red": ["red"], "blue": ["blue"]}},
        "image_size": {"type": "int", "default": 64},
        "prompt_speed": {"type": "str", "default": "Count without end."},
        "speed_tokens": {"type": "int", "default": 64, "no_log": False},
        "max_tokens": {"type": "int", "default": 32, "no_log": False},
        "timeout": {"type": "float", "default": 60},
        "deadline": {"type": "float", "default": 300},
        "attempts": {"type": "int", "default": 3},
        "max_slowdown": {"type": "float", "default": 2.0},
        "no_cache": {"type": "bool", "default": False},
        "judge_speed": {"type": "bool"},
        "slowdown_grace_ms": {"type": "float", "default": 200},
        "min_draft_share": {"type": "float", "default": 0.3},
        "baseline": {"type": "raw"},
        "record": {"type": "path"},
        "expect_failure": {"type": "bool", "default": False},
        "expect_reason": {"type": "str"},
        "targets": {
            "type": "list",
            "elements": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "url": {"type": "str", "required": True},
                "model": {"type": "str"},
                "api_key": key,
                "api_key_file": key_file,
                "checks": checks,
                "attempts": {"type": "int"},
                "judge_speed": {"type": "bool"},
                "no_cache": {"type": "bool"},
                "replay": {"type": "bool", "default": False},
                "baseline": {"type": "raw"},
                "record": {"type": "path"},
                "expect_failure": {"type": "bool"},
                "expect_reason": {"type": "str"},
            },
        },
        "instances": {"type": "list", "elements": "dict"},
        "record_dir": {"type": "path"},
        "ca_path": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        mutually_exclusive=[("api_key", "api_key_file"), ("url", "targets"), ("url", "instances")],
        supports_check_mode=True,
    )
    try:
        run(module)
    except FleetError as error:
        module.fail_json(msg=error.message, passed=False, attempts=0, **error.details)


if __name__ == "__main__":
    main()
