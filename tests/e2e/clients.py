"""Requests of common client libraries and their results: the same at an edge and at a gateway.

Each case is a function from a service to an outcome, which is plain data, to compare two services. Nothing in an
outcome depends on time or chance.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import os
import struct
import sys
import typing as t
import urllib.error
import urllib.request
import zlib

import openai

QUESTION = "What is the capital of France? Answer with one word."
COLOUR = "What colour is the square? Answer with one word."
#: A red square.
SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
    "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
    "SUVORK5CYII="
)
SCHEMA: dict[str, t.Any] = {
    "type": "object",
    "properties": {"capital": {"enum": ["Paris", "Rome"]}},
    "required": ["capital"],
    "additionalProperties": False,
}
TOOL: dict[str, t.Any] = {
    "type": "function",
    "function": {
        "name": "capital",
        "description": "Remember a capital.",
        "parameters": {"type": "object", "properties": {"name": {"enum": ["Paris"]}}, "required": ["name"]},
    },
}

Outcome = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Service:
    """An OpenAI-compatible service.

    Args:
        url: with scheme, host and port, without a path.
        key: a client's.
        model: the model name of the requests.
    """

    url: str
    key: str
    model: str

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=120)

    @property
    def langchain(self) -> t.Any:
        package = importlib.import_module("langchain_openai")
        return package.ChatOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, model=self.model, temperature=0, max_retries=0
        )

    @property
    def anthropic(self) -> t.Any:
        package = importlib.import_module("anthropic")
        return package.Anthropic(base_url=self.url, api_key=self.key, max_retries=0, timeout=120)

    def chat(self, content: t.Any = QUESTION, **more: t.Any) -> t.Any:
        asked = {"model": self.model, "temperature": 0, "max_tokens": 16, **more}
        asked = {name: value for name, value in asked.items() if value is not None}
        return self.openai.chat.completions.create(messages=[{"role": "user", "content": content}], **asked)

    def raw(
        self, path: str, body: bytes | None = None, key: str | None = "", method: str | None = None
    ) -> tuple[int, t.Any]:
        """Status and JSON of one request, without a client library's handling."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method)
        request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Authorization", f"Bearer {key or self.key}")
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=120) as response:
                return int(response.status), json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: t.Any) -> None:
        return None


Case = t.Callable[[Service], Outcome]
CASES: dict[str, Case] = {}
#: Cases that a stand-in for an engine can answer, too.
SIMPLE: set[str] = set()

#: Different outcomes at a gateway: docs/clients.md gives the reasons.
DIFFERENT: dict[str, Outcome] = {"completions_of_two_prompts_in_a_stream": {"indexes": [0]}}


def case(simple: bool = False) -> t.Callable[[Case], Case]:
    def register(function: Case) -> Case:
        CASES[function.__name__] = function
        if simple:
            SIMPLE.add(function.__name__)
        return function

    return register


def outcome(service: Service, name: str) -> Outcome:
    """The outcome of a case. Errors that a client raises are outcomes, too."""
    try:
        return CASES[name](service)
    except openai.APIStatusError as error:
        return _refusal(error)
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "anthropic" and hasattr(error, "status_code"):
            return _refusal(error)
        raise


def _refusal(error: t.Any) -> Outcome:
    return {"raised": type(error).__name__, "status": error.status_code, "says": bool(_message(error.response.json()))}


def _message(document: t.Any) -> str:
    found = document.get("error", {}).get("message", "")
    return found if isinstance(found, str) else ""


def _error(answer: tuple[int, t.Any]) -> Outcome:
    status, document = answer
    shaped = isinstance(document, dict) and set(document.get("error", {})) >= {"message", "type", "param", "code"}
    return {"status": status, "of OpenAI's shape": shaped}


def _word(text: str | None) -> str:
    return (text or "").strip().rstrip(".")


def _chat(answer: t.Any) -> Outcome:
    return {
        "object": answer.object,
        "model": bool(answer.model),
        "id": bool(answer.id),
        "text": [_word(choice.message.content) for choice in answer.choices],
        "finish": [choice.finish_reason for choice in answer.choices],
        "usage": answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens > 1,
    }


# Chat


@case(simple=True)
def chat(service: Service) -> Outcome:
    return _chat(service.chat())


@case(simple=True)
def chat_with_newer_parameters(service: Service) -> Outcome:
    more = {"seed": 1, "user": "somebody", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    return _chat(service.chat(max_tokens=None, max_completion_tokens=16, parallel_tool_calls=False, **more))


@case()
def chat_with_sampling(service: Service) -> Outcome:
    return _chat(service.chat(top_p=1.0, presence_penalty=0.0, frequency_penalty=0.0, logit_bias={"1": -1}))


@case()
def chat_with_reasoning_effort(service: Service) -> Outcome:
    return _chat(service.chat(reasoning_effort="low"))


@case(simple=True)
def chat_that_is_cut(service: Service) -> Outcome:
    answer = service.chat("Count from one to twenty in words.", max_tokens=None, max_completion_tokens=2)
    return {"finish": answer.choices[0].finish_reason, "tokens": answer.usage.completion_tokens}


@case()
def chat_with_two_choices(service: Service) -> Outcome:
    return _chat(service.chat(n=2, temperature=0.01))


@case()
def chat_with_a_stop(service: Service) -> Outcome:
    return _chat(service.chat("Count from one to twenty in words.", stop=[","]))


@case(simple=True)
def chat_in_a_stream(service: Service) -> Outcome:
    chunks = list(service.chat(stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return {
        "text": _word("".join(choice.delta.content or "" for choice in choices)),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usage": [chunk.usage.total_tokens > 1 for chunk in chunks if chunk.usage],
        "objects": sorted({chunk.object for chunk in chunks}),
        "ids": len({chunk.id for chunk in chunks}),
    }


@case(simple=True)
def chat_in_a_stream_without_usage(service: Service) -> Outcome:
    chunks = list(service.chat(stream=True))
    return {"usage": [bool(chunk.usage) for chunk in chunks if chunk.usage]}


@case(simple=True)
def chat_with_a_system_prompt_in_parts(service: Service) -> Outcome:
    messages: list[t.Any] = [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    made = service.openai.chat.completions.create(model=service.model, messages=messages, temperature=0, max_tokens=16)
    return _chat(made)


@case(simple=True)
def chat_about_a_picture(service: Service) -> Outcome:
    parts = [{"type": "image_url", "image_url": {"url": SQUARE}}, {"type": "text", "text": COLOUR}]
    found = _chat(service.chat(parts))
    return {**found, "text": [text.lower() for text in found["text"]]}


@case()
def chat_with_logprobs(service: Service) -> Outcome:
    first = service.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content[0]
    return {"token": bool(first.token), "logprob": first.logprob <= 0, "top": len(first.top_logprobs)}


@case()
def chat_in_a_schema(service: Service) -> Outcome:
    response_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    answer = service.chat(response_format=response_format, max_tokens=32)
    # The lab's model is so small that it may generate spaces for ever.
    return {"begins": answer.choices[0].message.content.lstrip()[:1]}


@case()
def chat_in_json(service: Service) -> Outcome:
    answer = service.chat(response_format={"type": "json_object"}, max_tokens=32)
    return {"begins": answer.choices[0].message.content.lstrip()[:1]}


@case()
def chat_with_a_tool_that_is_named(service: Service) -> Outcome:
    return _calls(service, {"type": "function", "function": {"name": "capital"}})


@case()
def chat_with_a_tool_that_is_required(service: Service) -> Outcome:
    return _calls(service, "required")


def _calls(service: Service, choice: t.Any) -> Outcome:
    answer = service.chat(tools=[TOOL], tool_choice=choice, max_tokens=64).choices[0]
    calls = answer.message.tool_calls or []
    # The lab's model is so small that it may generate spaces until its limit, and a truncated call is invalid.
    return {"names": [call.function.name for call in calls] or answer.finish_reason}


@case()
def chat_with_a_tool_at_will(service: Service) -> Outcome:
    return {"finish": service.chat(tools=[TOOL]).choices[0].finish_reason in ("stop", "length", "tool_calls")}


# Completions, responses, the rest of the API


@case()
def completion(service: Service) -> Outcome:
    answer = service.openai.completions.create(
        model=service.model, prompt="The capital is", max_tokens=3, temperature=0
    )
    return {"object": answer.object, "finish": answer.choices[0].finish_reason, "usage": bool(answer.usage)}


@case()
def completion_of_token_ids(service: Service) -> Outcome:
    answer = service.openai.completions.create(model=service.model, prompt=[11, 12, 13], max_tokens=2, temperature=0)
    assert answer.usage
    return {"choices": len(answer.choices), "prompt": answer.usage.prompt_tokens}


@case()
def completions_of_lists_of_token_ids(service: Service) -> Outcome:
    answer = service.openai.completions.create(model=service.model, prompt=[[11, 12], [13]], max_tokens=2)
    return {"choices": len(answer.choices)}


@case()
def completions_of_two_prompts_in_a_stream(service: Service) -> Outcome:
    chunks = list(service.openai.completions.create(model=service.model, prompt=["a", "b"], max_tokens=2, stream=True))
    return {"indexes": sorted({choice.index for chunk in chunks for choice in chunk.choices})}


@case()
def response(service: Service) -> Outcome:
    answer = service.openai.responses.create(model=service.model, input=QUESTION, temperature=0, max_output_tokens=16)
    assert answer.usage
    return {"status": answer.status, "text": _word(answer.output_text), "usage": answer.usage.total_tokens > 1}


@case()
def response_in_a_stream(service: Service) -> Outcome:
    events = list(
        service.openai.responses.create(
            model=service.model, input=QUESTION, temperature=0, max_output_tokens=16, stream=True
        )
    )
    kinds = [event.type for event in events]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return {"text": _word(text), "first": kinds[0], "last": kinds[-1]}


@case(simple=True)
def models(service: Service) -> Outcome:
    found = list(service.openai.models.list())
    return {"has": service.model in [model.id for model in found], "objects": sorted({model.object for model in found})}


@case(simple=True)
def one_model(service: Service) -> Outcome:
    found = service.openai.models.retrieve(service.model)
    return {"id": found.id == service.model, "object": found.object, "created": found.created > 0}


@case(simple=True)
def a_model_that_is_not_there(service: Service) -> Outcome:
    return {"id": service.openai.models.retrieve("no-such/model").id}


@case(simple=True)
def embeddings_of_a_model_without(service: Service) -> Outcome:
    return {"data": len(service.openai.embeddings.create(model=service.model, input="x").data)}


@case(simple=True)
def a_slash_at_the_end(service: Service) -> Outcome:
    status, document = service.raw("/v1/models/")
    return {"status": status, "object": document.get("object")}


# Refused requests


@case(simple=True)
def unknown_model(service: Service) -> Outcome:
    return _chat(service.chat(model="no-such-model"))


@case()
def a_parameter_out_of_range(service: Service) -> Outcome:
    return _chat(service.chat(temperature=-3))


@case()
def a_parameter_of_the_wrong_type(service: Service) -> Outcome:
    return _chat(service.chat(extra_body={"max_tokens": "many"}))


@case()
def more_tokens_than_the_model_has(service: Service) -> Outcome:
    return _chat(service.chat(max_tokens=99_999_999))


@case()
def a_schema_that_is_none(service: Service) -> Outcome:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    return _chat(service.chat(response_format=response_format))


@case(simple=True)
def no_messages(service: Service) -> Outcome:
    made = service.openai.chat.completions.create(model=service.model, messages=[])
    return _chat(made)


def _picture(service: Service, url: str) -> Outcome:
    return _chat(service.chat([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]))


@case(simple=True)
def a_picture_that_is_none(service: Service) -> Outcome:
    return _picture(service, "data:image/png;base64,aGVsbG8gd29ybGQ=")


@case()
def a_picture_in_broken_base64(service: Service) -> Outcome:
    return _picture(service, "data:image/png;base64,!!!!")


@case()
def a_picture_of_a_billion_pixels(service: Service) -> Outcome:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return _picture(service, "data:image/png;base64," + base64.b64encode(data).decode())


@case()
def a_picture_that_is_not_base64(service: Service) -> Outcome:
    return _picture(service, "data:image/png,hello")


@case()
def a_picture_from_the_hosts_disk(service: Service) -> Outcome:
    return _picture(service, "file:///etc/passwd")


@case()
def a_picture_from_where_none_may_come(service: Service) -> Outcome:
    return _picture(service, "http://169.254.169.254/latest")


@case(simple=True)
def bad_json(service: Service) -> Outcome:
    return _error(service.raw("/v1/chat/completions", b'{"model": '))


@case(simple=True)
def a_list_for_a_body(service: Service) -> Outcome:
    return _error(service.raw("/v1/chat/completions", b"[]"))


@case()
def a_body_that_is_not_utf8(service: Service) -> Outcome:
    return _error(service.raw("/v1/chat/completions", b'{"model": "\xff\xfe"}'))


@case(simple=True)
def no_body(service: Service) -> Outcome:
    return _error(service.raw("/v1/chat/completions", b""))


@case(simple=True)
def no_key(service: Service) -> Outcome:
    return _error(service.raw("/v1/models", key=None))


@case(simple=True)
def a_wrong_key(service: Service) -> Outcome:
    return _error(service.raw("/v1/models", key="sk-wrong"))


@case(simple=True)
def a_path_that_is_not_there(service: Service) -> Outcome:
    return _error(service.raw("/v1/no-such-path", b"{}"))


@case(simple=True)
def a_method_that_is_not_there(service: Service) -> Outcome:
    return _error(service.raw("/v1/chat/completions", method="GET"))


# Third-party clients


@case(simple=True)
def langchain(service: Service) -> Outcome:
    answer = service.langchain.invoke(QUESTION)
    return {"text": _word(answer.content), "tokens": answer.usage_metadata["total_tokens"] > 1}


@case(simple=True)
def langchain_in_a_stream(service: Service) -> Outcome:
    return {"text": _word("".join(chunk.content for chunk in service.langchain.stream(QUESTION)))}


@case(simple=True)
def langchain_with_an_unknown_model(service: Service) -> Outcome:
    return {"text": dataclasses.replace(service, model="no-such-model").langchain.invoke(QUESTION).content}


def _message_to(service: Service, content: t.Any = QUESTION, **more: t.Any) -> t.Any:
    return service.anthropic.messages.create(
        **{"model": service.model, "max_tokens": 16, "messages": [{"role": "user", "content": content}], **more}
    )


@case()
def anthropic(service: Service) -> Outcome:
    answer = _message_to(service, system="Be short.")
    return {
        "text": _word(answer.content[0].text),
        "type": answer.type,
        "stop": answer.stop_reason,
        "usage": answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0,
    }


@case()
def anthropic_in_a_stream(service: Service) -> Outcome:
    asked = {"model": service.model, "max_tokens": 16, "messages": [{"role": "user", "content": QUESTION}]}
    with service.anthropic.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        return {"text": _word(text), "stop": stream.get_final_message().stop_reason}


@case()
def anthropic_about_a_picture(service: Service) -> Outcome:
    source = {"type": "base64", "media_type": "image/png", "data": SQUARE.partition(",")[2]}
    answer = _message_to(service, [{"type": "image", "source": source}, {"type": "text", "text": COLOUR}])
    return {"text": _word(answer.content[0].text).lower()}


@case()
def anthropic_with_an_unknown_model(service: Service) -> Outcome:
    return {"text": _message_to(service, model="no-such-model").content[0].text}


@case(simple=True)
def anthropic_with_a_wrong_key(service: Service) -> Outcome:
    return {"text": _message_to(dataclasses.replace(service, key="sk-wrong")).content[0].text}


_ANSWER = {"object": "chat.completion", "model": True, "id": True, "text": ["Paris"], "finish": ["stop"], "usage": True}
_BAD = {"raised": "BadRequestError", "status": 400, "says": True}
_MISSING = {"raised": "NotFoundError", "status": 404, "says": True}

#: The outcome of each case at an edge, and at a gateway except for DIFFERENT.
EXPECTED: dict[str, Outcome] = {
    "chat": _ANSWER,
    "chat_with_newer_parameters": _ANSWER,
    "chat_with_sampling": _ANSWER,
    "chat_with_reasoning_effort": _ANSWER,
    "chat_that_is_cut": {"finish": "length", "tokens": 2},
    "chat_with_two_choices": {**_ANSWER, "text": ["Paris", "Paris"], "finish": ["stop", "stop"]},
    "chat_with_a_stop": {**_ANSWER, "text": ["one"]},
    "chat_in_a_stream": {
        "text": "Paris",
        "finish": ["stop"],
        "usage": [True],
        "objects": ["chat.completion.chunk"],
        "ids": 1,
    },
    "chat_in_a_stream_without_usage": {"usage": []},
    "chat_with_a_system_prompt_in_parts": _ANSWER,
    "chat_about_a_picture": {**_ANSWER, "text": ["red"]},
    "chat_with_logprobs": {"token": True, "logprob": True, "top": 2},
    "chat_in_a_schema": {"begins": "{"},
    "chat_in_json": {"begins": "{"},
    "completion": {"object": "text_completion", "finish": "stop", "usage": True},
    "completion_of_token_ids": {"choices": 1, "prompt": 3},
    "completions_of_lists_of_token_ids": {"choices": 2},
    "completions_of_two_prompts_in_a_stream": {"indexes": [0, 1]},
    "response": {"status": "completed", "text": "Paris", "usage": True},
    "response_in_a_stream": {"text": "Paris", "first": "response.created", "last": "response.completed"},
    "models": {"has": True, "objects": ["model"]},
    "one_model": {"id": True, "object": "model", "created": True},
    "a_model_that_is_not_there": _MISSING,
    "embeddings_of_a_model_without": _MISSING,
    "a_slash_at_the_end": {"status": 200, "object": "list"},
    "unknown_model": _MISSING,
    "a_parameter_out_of_range": _BAD,
    "a_parameter_of_the_wrong_type": _BAD,
    "more_tokens_than_the_model_has": _BAD,
    "a_schema_that_is_none": _BAD,
    "no_messages": _BAD,
    "a_picture_that_is_none": _BAD,
    "a_picture_in_broken_base64": _BAD,
    "a_picture_of_a_billion_pixels": _BAD,
    "a_picture_that_is_not_base64": _BAD,
    "a_picture_from_the_hosts_disk": _BAD,
    "a_picture_from_where_none_may_come": _BAD,
    "bad_json": {"status": 400, "of OpenAI's shape": True},
    "a_list_for_a_body": {"status": 400, "of OpenAI's shape": True},
    "a_body_that_is_not_utf8": {"status": 400, "of OpenAI's shape": True},
    "no_body": {"status": 400, "of OpenAI's shape": True},
    "no_key": {"status": 401, "of OpenAI's shape": True},
    "a_wrong_key": {"status": 401, "of OpenAI's shape": True},
    "a_path_that_is_not_there": {"status": 404, "of OpenAI's shape": True},
    "a_method_that_is_not_there": {"status": 405, "of OpenAI's shape": True},
    "langchain": {"text": "Paris", "tokens": True},
    "langchain_in_a_stream": {"text": "Paris"},
    "langchain_with_an_unknown_model": {**_MISSING, "raised": "OpenAIModelNotFoundError"},
    "anthropic": {"text": "Paris", "type": "message", "stop": "end_turn", "usage": True},
    "anthropic_in_a_stream": {"text": "Paris", "stop": "end_turn"},
    "anthropic_about_a_picture": {"text": "red"},
    "anthropic_with_an_unknown_model": _MISSING,
    "anthropic_with_a_wrong_key": {"raised": "AuthenticationError", "status": 401, "says": True},
}


def main() -> None:
    """Compare the gateway of CLIENTS_URL, CLIENTS_KEY and CLIENTS_MODEL, before a stand-in, with the expected ones."""
    service = Service(*(os.environ[f"CLIENTS_{name}"] for name in ("URL", "KEY", "MODEL")))
    found = {name: outcome(service, name) for name in CASES if name in SIMPLE}
    wrong = {name: one for name, one in found.items() if one != {**EXPECTED, **DIFFERENT}[name]}
    for name, one in wrong.items():
        print(f"{name}: expected {EXPECTED[name]}, got {one}")
    print(f"{len(found) - len(wrong)} of {len(found)} requests were answered as they should be")
    sys.exit(1 if wrong or not found else 0)


if __name__ == "__main__":
    main()
