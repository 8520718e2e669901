"""What the edge reads of a request's body: its model, and by what the request finds its cache. With a real HAProxy."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import random
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

from tests.integration.edge.conftest import HAPROXY, IS_HAPROXY_2_4, ROLE, eventually, free_port

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="affinity begins with HAProxy 2.5")

CHAT = "/v1/chat/completions"
BUFFER = 16384
ANSWER = '"%[var(txn.affinity)] %[var(txn.model),base64] %[var(txn.no_model)]"'
CONFIGURATION = """\
global
    log stdout format raw daemon
    lua-load-per-thread {program}
    tune.bufsize {buffer}
    nbthread 2
defaults
    mode http
    log global
    timeout client 30s
    timeout connect 5s
    timeout server 30s
frontend reader
    bind 127.0.0.1:{port}
    http-request wait-for-body time 30s
    http-request set-var(txn.client) req.fhdr(x-client)
    http-request lua.affinity prefix if !{{ req.fhdr(x-mode) -m found }}
    http-request lua.affinity client if {{ req.fhdr(x-mode) client }}
    http-request lua.affinity none if {{ req.fhdr(x-mode) none }}
    http-request return status 200 content-type text/plain lf-string {answer}
"""


class Read(t.NamedTuple):
    """What was found; empty where nothing was."""

    affinity: str
    model: str
    no_model: str


class Reader:
    """A HAProxy that answers with what it has read."""

    def __init__(self, place: Path) -> None:
        self.port = free_port()
        self.log = place / "log"
        config = place / "haproxy.cfg"
        program = ROLE / "files" / "affinity.lua"
        config.write_text(CONFIGURATION.format(program=program, port=self.port, buffer=BUFFER, answer=ANSWER))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)], stdout=log, stderr=subprocess.STDOUT)
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.read({})
        except OSError:
            return False
        return True

    def read(self, body: t.Any, path: str = CHAT, client: str = "team-a", **headers: str) -> Read:
        """What is read of a body: bytes, or a document. With an iterator it has no length."""
        plain = isinstance(body, (bytes, str)) or hasattr(body, "__next__")
        sent = {"X-Client": client, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # It answers as soon as its buffer is full.
                self._connection.request("POST", path, body if plain else json.dumps(body), sent)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.will_close:
            self._connection.close()
        assert response.status == 200, (response.status, answer)
        affinity, model, no_model = answer.decode().split(" ")
        return Read(affinity, base64.b64decode(model).decode(), no_model)

    def stop(self) -> None:
        self._connection.close()
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Reader]:
    if not shutil.which(HAPROXY):
        pytest.skip("needs HAProxy")
    reader = Reader(tmp_path_factory.mktemp("reader"))
    yield reader
    reader.stop()


@pytest.fixture
def reader(running: Reader) -> t.Iterator[Reader]:
    yield running
    # Not a single fault in Lua.
    assert "error" not in running.log.read_text()


def user(*content: t.Any) -> dict[str, t.Any]:
    """A string, or parts."""
    return {"role": "user", "content": list(content) if isinstance(content[0], dict) else content[0]}


def system(content: t.Any) -> dict[str, t.Any]:
    return {"role": "system", "content": content}


def chat(*messages: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {"messages": list(messages), "model": "m", **more}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def picture(data: bytes, kind: str = "png") -> dict[str, t.Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - not a secret, but the same each time


REPLY = {"role": "assistant", "content": 'It says "hello" \\ and ends.'}
SYSTEM = system("You are a help. " * 40)


# By what a request is known


def test_a_conversation_keeps_its_affinity_as_it_grows_beyond_the_buffer(reader: Reader) -> None:
    first = reader.read(chat(SYSTEM, user("Why is the sky blue?")))
    assert len(first.affinity) == 16
    later = [user("And at night?"), REPLY] * 10
    assert reader.read(chat(SYSTEM, user("Why is the sky blue?"), REPLY, *later)) == first
    grown = reader.read(chat(SYSTEM, user("Why is the sky blue?"), REPLY, *later * 40))
    assert grown == (first.affinity, "", "cut")


def test_what_differs_in_system_prompt_or_first_question_is_another_one(reader: Reader) -> None:
    bodies = [
        chat(SYSTEM, user("a")),
        chat(SYSTEM, user("b")),
        chat(user("a")),
        chat(system("other"), user("a")),
        chat({"role": "developer", "content": "other"}, system("more"), user("a")),
        # What is said where counts, too.
        chat(system("a")),
        chat(system("othera"), user("")),
    ]
    found = [reader.read(body).affinity for body in bodies]
    assert len(set(found)) == len(found)
    # Of a system prompt alone there has to be much.
    assert found[5] == ""


def test_the_first_kilobyte_of_the_question_counts(reader: Reader) -> None:
    document = "".join(chance(1).choices('abcdef "\\\n', k=900))
    questions = [document + "a" * 1000 + end for end in ("x", "y")]
    assert len({reader.read(chat(user(one))).affinity for one in questions}) == 1
    assert len({reader.read(chat(user(one[-900:]))).affinity for one in questions}) == 2
    long = chat(SYSTEM, user(document * 30))
    assert reader.read(long).affinity == reader.read(chat(SYSTEM, user(document * 31))).affinity != ""


def test_a_system_prompt_that_fills_the_buffer_is_enough(reader: Reader) -> None:
    prompts = ["word " * 4000, "other " * 4000]
    found = [[reader.read(chat(system(one), user(str(n)))).affinity for n in range(2)] for one in prompts]
    assert found[0][0] == found[0][1] != found[1][0] == found[1][1] != ""


def test_one_clients_conversations_are_not_anothers(reader: Reader) -> None:
    found = {reader.read(chat(user("a")), client=client).affinity for client in ("team-a", "team-b")}
    assert len(found) == 2


@pytest.mark.parametrize("session", ["x-session-id", "prompt_cache_key"])
def test_a_session_that_is_named_decides(reader: Reader, session: str) -> None:
    def read(name: str, question: str, client: str = "team-a") -> str:
        if session == "prompt_cache_key":
            return reader.read(chat(user(question), prompt_cache_key=name), client=client).affinity
        return reader.read(chat(user(question)), client=client, X_Session_ID=name).affinity

    assert read("one", "a") == read("one", "b") != read("two", "a")
    assert read("one", "a", "team-b") != read("one", "a")
    # Not a name: the conversation decides.
    assert read("n" * 257, "a") == read("", "a") == reader.read(chat(user("a"))).affinity


def test_a_named_session_needs_no_body_that_can_be_read(reader: Reader) -> None:
    named = reader.read(b"\x1f\x8b", X_Session_ID="one")
    assert named.affinity == reader.read(chat(user("a")), X_Session_ID="one").affinity != ""
    assert named.no_model == "invalid"


def test_other_ways_of_knowing_a_request(reader: Reader) -> None:
    by_client = [reader.read(chat(user(words)), client=client, X_Mode="client") for words, client in ("ac", "bc", "ad")]
    assert by_client[0] == by_client[1] != by_client[2]
    assert reader.read(chat(user("a")), X_Mode="none") == ("", "m", "")
    assert reader.read(chat(user("a")), X_Mode="none", X_Session_ID="one").affinity == ""


# Where the parts of a prompt are


def test_a_list_of_parts_is_read_like_a_string(reader: Reader) -> None:
    assert len({reader.read(chat(user(text(words), text("b")))).affinity for words in "abc"}) == 3
    assert reader.read(chat(system([text("s")]), user(text("a")))) == reader.read(chat(system("s"), user("a")))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", lambda words: {"model": "m", "prompt": words}),
        ("/v1/completions", lambda words: {"model": "m", "prompt": [words, "other"]}),
        ("/v1/completions", lambda words: {"prompt": [len(words), 2, 3], "model": "m"}),
        ("/v1/completions", lambda words: {"prompt": [[len(words), 2], [3]], "model": "m"}),
        ("/v1/responses", lambda words: {"model": "m", "input": words}),
        ("/v1/responses", lambda words: {"instructions": words, "model": "m", "input": "a"}),
        ("/v1/responses", lambda words: {"input": [user({"type": "input_text", "text": words})], "model": "m"}),
        ("/v1/responses", lambda words: {"input": [user({"type": "input_image", "image_url": words})], "model": "m"}),
        ("/v1/messages", lambda words: {"system": words, "messages": [user("a")], "model": "m"}),
        ("/v1/messages", lambda words: {"system": [text(words)], "messages": [user(text("a"))], "model": "m"}),
        (
            "/v1/messages",
            lambda words: {"messages": [user({"type": "image", "source": {"data": words}})], "model": "m"},
        ),
        (CHAT, lambda words: chat({"content": words, "name": "n", "role": "user"})),
        (CHAT, lambda words: {"model": "m", "tools": [{"messages": [1]}], "messages": [user(words)]}),
        (CHAT, lambda words: chat(user({"type": "image_url", "image_url": {"url": f"https://pictures/{words}"}}))),
        (CHAT, lambda words: chat(user({"type": "input_audio", "input_audio": {"data": words, "format": "wav"}}))),
    ],
)
def test_each_interface_has_its_place_for_it(reader: Reader, path: str, body: t.Callable[[str], t.Any]) -> None:
    one, same, other = [reader.read(body(words), path) for words in ("one", "one", "other")]
    assert one == same
    assert one.affinity != other.affinity
    assert one.model == "m"
    assert "" not in (one.affinity, other.affinity)


def test_what_has_no_prompt_has_no_affinity(reader: Reader) -> None:
    for path in ("/v1/embeddings", "/v1/rerank", "/v1/messages/count_tokens"):
        assert reader.read({"model": "m", "input": "a", "messages": [user("a")]}, path) == ("", "m", "")
    for body in ({"model": "m"}, {"model": "m", "messages": []}, chat(REPLY), chat(user(None)), {"messages": 1}):
        assert reader.read(body).affinity == ""


def jpeg(number: int, size: int) -> bytes:
    """The same headers, with a profile of colours, and other pictures."""
    return b"\xff\xd8\xff\xe0" + b"quantisation" * 240 + chance(number).randbytes(size)


@pytest.mark.parametrize("size", [200, 5000, 100_000])
def test_pictures_differ_by_what_they_show(reader: Reader, size: int) -> None:
    found = [reader.read(chat(user(picture(jpeg(number, size)), text("What is it?")))).affinity for number in (1, 2, 1)]
    assert found[0] == found[2] != found[1]
    assert "" not in found
    # A conversation about it is the same one.
    asked = chat(user(picture(jpeg(1, size)), text("What is it?")), REPLY, user("And that?"))
    assert reader.read(asked).affinity == found[0]


# The model


@pytest.mark.parametrize(
    ("body", "model", "no_model"),
    [
        ({"model": "a", "messages": [user("x")]}, "a", ""),
        (b'{"messages":[{"role":"user","content":"x"}],"model" : "Qwen\\/Qwen3-VL\\u002d8B"}', "Qwen/Qwen3-VL-8B", ""),
        (b'{"mod\\u0065l":"a"}', "a", ""),
        (b'{"model":"\\ud83d\\ude00 \\ud83d \\"\\n"}', "", "type"),
        (b'{"model":"\\ud83d\\ude00\\ud83d\\"\\u00e9"}', '\U0001f600"\u00e9', ""),
        (b'{"model":"\\\\ud83d\\ude00\\\\n\\\\\\\\"}', "\\ud83d\\n\\\\", ""),
        ({"messages": [user("x")]}, "", "none"),
        ({"messages": [user('"model": "b"')], "tools": [{"model": "b"}], "metadata": {"model": "b"}}, "", "none"),
        ({"model": None}, "", "type"),
        ({"model": ["a"]}, "", "type"),
        ({"model": 1}, "", "type"),
        ({"model": ""}, "", "type"),
        ({"model": "a\0"}, "", "type"),
        ({"model": "a" * 257}, "", "type"),
        (b'{"model":"a","model":"b"}', "", "two"),
        (b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"a"}', "", "two"),
        (b"[]", "", "invalid"),
        (b"", "", "invalid"),
        (b'{"model":"a"', "", "invalid"),
        (b'"model"', "", "invalid"),
        (b'{"model":"a"]', "", "invalid"),
        (b'{"model" "a"}', "", "invalid"),
        (b"{model:1}", "", "invalid"),
        (b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--x--', "", "invalid"),
    ],
)
def test_the_model_is_read_and_never_guessed(reader: Reader, body: t.Any, model: str, no_model: str) -> None:
    assert reader.read(body)[1:] == (model, no_model)


def test_a_model_behind_the_end_of_the_buffer_is_not_seen(reader: Reader) -> None:
    words = "x" * 100_000
    assert reader.read({"messages": [user(words)], "model": "a"}).no_model == "cut"
    assert reader.read({"model": "a", "messages": [user(words)]}).model == "a"


def test_a_body_without_a_length_is_read_as_one_with_it(reader: Reader) -> None:
    short, long = chat(user("a" * 3000)), chat(user("a" * 100_000))
    for body in (short, long):
        assert reader.read(iter([json.dumps(body).encode()])) == reader.read(body)
    assert reader.read(iter([json.dumps(short).encode()[:-1]])).no_model == "invalid"


def test_a_compressed_body_is_not_read(reader: Reader) -> None:
    body = gzip.compress(json.dumps(chat(user("a"))).encode())
    assert reader.read(body, Content_Encoding="gzip") == ("", "", "invalid")
    # Even if it says what it is not.
    assert reader.read(chat(user("a")), Content_Encoding="gzip") == ("", "", "invalid")


def test_a_truncated_body_has_no_affinity(reader: Reader) -> None:
    whole = json.dumps(chat(SYSTEM, user("a"), REPLY)).encode()
    for length in range(0, whole.index(b"user"), 7):
        assert reader.read(whole[:length]) == ("", "", "invalid")


# Fuzzing


def random_value(random_: random.Random, depth: int) -> t.Any:
    kind = random_.randrange(9 if depth else 6)
    if kind < 3:
        return "".join(random_.choices('ab"\\/{}[]:,\n\té\U0001f600\x01', k=random_.randrange(30)))
    if kind < 6:
        return random_.choice([None, True, False, 0, -1.5e300, 10**30])
    if kind < 7:
        return [random_value(random_, depth - 1) for _ in range(random_.randrange(4))]
    names = ("model", "messages", "role", "content", "text", "type", "prompt_cache_key", 'a"b', "user")
    return {random_.choice(names): random_value(random_, depth - 1) for _ in range(random_.randrange(5))}


def random_body(random_: random.Random) -> dict[str, t.Any]:
    roles = ("system", "user", "assistant", "tool", "developer", None)
    messages = [
        random_.choice(
            [
                {"role": random_.choice(roles), "content": random_value(random_, 3)},
                {"content": random_value(random_, 3), "role": random_.choice(roles)},
                random_value(random_, 3),
            ]
        )
        for _ in range(random_.randrange(6))
    ]
    body = {"model": random_value(random_, 1), "messages": messages, "x": random_value(random_, 4)}
    names = random_.sample(sorted(body), k=random_.randrange(4))
    return {name: body[name] for name in names}


def dumped(random_: random.Random, body: t.Any) -> bytes:
    separators = random_.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])
    return json.dumps(body, separators=separators, ensure_ascii=random_.random() < 0.5).encode()


def is_name(value: t.Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= 256 and not any(c < " " or c == "\x7f" for c in value)


def test_of_any_document_the_model_is_that_which_json_has(reader: Reader) -> None:
    random_ = chance(16)
    for _ in range(int(os.environ.get("FUZZ", "1500"))):
        body = random_body(random_)
        data = dumped(random_, body)
        found = reader.read(data, random_.choice([CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings"]))
        expected = (body["model"], "") if is_name(body.get("model")) else ("", "type" if "model" in body else "none")
        assert found[1:] == expected, data


def test_no_body_ends_lua(reader: Reader) -> None:
    random_ = chance(17)
    ways: list[t.Callable[[bytes], bytes]] = [
        lambda data: data[: random_.randrange(len(data) + 1)],
        lambda data: bytes(random_.choice(data) for _ in data),
        lambda data: data.replace(random_.choice([b'"', b"{", b"]", b":", b","]), random_.randbytes(1)),
        lambda data: data * 20,
        lambda data: data[:50] + random_.randbytes(20) + data[50:],
    ]
    for _ in range(int(os.environ.get("FUZZ", "1500"))):
        data = random_.choice(ways)(dumped(random_, random_body(random_)))
        path = random_.choice([CHAT, "/v1/messages", "/v1/responses", "/v1/completions"])
        reader.read(random_.choice([data, iter([data])]), path)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 15000,
        b'{"messages":' + b"[" * 15000,
        b'{"messages":' + b'{"a":' * 3000,
        b'{"messages":[{"role":"user","content":' + b"[" * 15000,
        b'{"messages":[{"role":"user","content":[' + b'{"a":' * 3000,
        b'{"messages":[{"role":"user","content":"' + b"\\" * 15000,
        b'{"messages":[{"role":"user","content":"' + b'\\"' * 7500,
        b'{"messages":[' + b'{"role":"user"},' * 900,
        b'{"model":"' + b"\\ud83d" * 2000 + b'"}',
        b'{"prompt":[' + b"1," * 7000,
        b'{"prompt":[' + b" " * 15000,
        b'"' * 15000,
        b"\x00" * 15000,
    ],
)
def test_deep_and_long_bodies_are_read_in_time(reader: Reader, data: bytes) -> None:
    for path in (CHAT, "/v1/completions", "/v1/messages"):
        assert reader.read(data, path).model == ""
        assert reader.read(data + b"x" * 100_000, path).model == ""


def test_requests_at_once_do_not_mix(reader: Reader) -> None:
    def ask(number: int) -> tuple[str, str]:
        own = Reader.__new__(Reader)
        own._connection = http.client.HTTPConnection("127.0.0.1", reader.port, timeout=30)
        found = {own.read(chat(user("x" * number), model=f"m{number}")) for _ in range(30)}
        own._connection.close()
        [one] = found
        return one.model, one.affinity

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(1, 9)))
    assert [model for model, _affinity in answers] == [f"m{number}" for number in range(1, 9)]
    assert len({affinity for _model, affinity in answers}) == 8
