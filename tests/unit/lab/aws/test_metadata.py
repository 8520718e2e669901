"""The metadata service over HTTP: tokens, what is announced, and what is not."""

from __future__ import annotations

import datetime
import http.client
import json
import threading
import typing as t
from pathlib import Path

import pytest

from lab.aws import metadata
from lab.aws.metadata import MetadataServer, Tokens

WHEN = datetime.datetime(2026, 12, 1, 9, 0, 43, tzinfo=datetime.UTC)
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


class Service:
    """A running service, its file and its time."""

    def __init__(self, said: Path) -> None:
        self.now = 0.0
        self._said = said
        self.say({})
        self.server = MetadataServer(("127.0.0.1", 0), said, Tokens(lambda: self.now))

    def say(self, what: dict[str, str]) -> None:
        self._said.write_text(json.dumps(what))

    def request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=30)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    def token(self, ttl: str = "60") -> str:
        status, token = self.request("PUT", "/latest/api/token", {TTL: ttl})
        assert status == 200
        return token

    def get(self, path: str, token: str) -> tuple[int, str]:
        return self.request("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})


@pytest.fixture
def service(tmp_path: Path) -> t.Iterator[Service]:
    made = Service(tmp_path / "said.json")
    threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_without_a_token_or_with_one_that_has_ended_it_says_401(service: Service) -> None:
    service.say({"instance-id": "i-1"})
    assert service.request("GET", "/latest/meta-data/instance-id", {})[0] == 401
    assert service.get("instance-id", "made-up")[0] == 401
    token = service.token("60")
    assert service.get("instance-id", token) == (200, "i-1")
    service.now = 60
    assert service.get("instance-id", token)[0] == 401


@pytest.mark.parametrize("ttl", ["", "0", "21601", "ten"])
def test_a_token_of_a_wrong_length_is_refused(service: Service, ttl: str) -> None:
    assert service.request("PUT", "/latest/api/token", {TTL: ttl})[0] == 400


def test_a_proxys_request_gets_no_token(service: Service) -> None:
    assert service.request("PUT", "/latest/api/token", {TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_what_is_not_announced_is_404_and_what_is_announced_needs_no_restart(service: Service) -> None:
    token = service.token()
    assert service.get(metadata.SPOT, token)[0] == 404
    service.say(metadata.announcement("spot", WHEN))
    status, text = service.get(metadata.SPOT, token)
    assert (status, json.loads(text)) == (200, {"action": "terminate", "time": "2026-12-01T09:00:43Z"})
    service.say({})
    assert service.get(metadata.SPOT, token)[0] == 404


def test_notices_have_awss_paths_and_dates() -> None:
    assert json.loads(metadata.announcement("rebalance", WHEN)["events/recommendations/rebalance"]) == {
        "noticeTime": "2026-12-01T09:00:43Z"
    }
    assert metadata.announcement("asg", WHEN) == {"autoscaling/target-lifecycle-state": "Terminated"}
    (event,) = json.loads(metadata.announcement("maintenance", WHEN)["events/maintenance/scheduled"])
    assert (event["NotBefore"], event["NotAfter"]) == ("1 Dec 2026 09:00:43 GMT", "1 Dec 2026 11:00:43 GMT")
    assert (event["Code"], event["State"]) == ("system-reboot", "active")
