"""The modules that LiteLLM loads, with the parts of LiteLLM that they use."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import types
import typing as t
from pathlib import Path

import pytest

from tests import programs

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "roles" / "litellm" / "files"
SCHEMA = ROOT / "plugins" / "module_utils" / "clients" / "schema.py"


class ProxyException(Exception):
    """As LiteLLM's: the error that a client gets."""

    def __init__(self, message: str, type: str, param: str | None, code: int, openai_code: str) -> None:  # noqa: A002
        super().__init__(message)
        self.message, self.type, self.param = message, type, param
        self.code, self.openai_code = str(code), openai_code

    def to_dict(self) -> dict[str, t.Any]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


@dataclasses.dataclass
class UserAPIKeyAuth:
    """As LiteLLM's: a caller."""

    api_key: str
    key_alias: str
    user_id: str
    user_role: str
    models: list[str]
    rpm_limit: int | None
    tpm_limit: int | None
    max_parallel_requests: int | None
    metadata: dict[str, t.Any]
    team_id: str | None = None
    team_alias: str | None = None
    team_rpm_limit: int | None = None
    team_tpm_limit: int | None = None


class CustomLogger:
    """As LiteLLM's: the base class of hooks."""


def load(name: str, path: Path | None = None) -> types.ModuleType:
    return programs.load(path or FILES / f"{name}.py", name)


def wait(coroutine: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
    return asyncio.run(coroutine)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Module fleet_clients."""
    for name in ("client_schema", "fleet_clients"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    load("client_schema", SCHEMA)
    return load("fleet_clients")


class GaugeMetricFamily:
    """As prometheus_client's: the samples of one name."""

    def __init__(self, name: str, text: str, labels: list[str]) -> None:
        self.name, self.labels = name, labels
        self.samples: list[tuple[list[str], float]] = []

    def add_metric(self, labels: list[str], value: float) -> None:
        self.samples.append((labels, value))


class Registry:
    """As prometheus_client's: what is asked at each scrape."""

    def __init__(self) -> None:
        self.collectors: list[t.Any] = []

    def register(self, collector: t.Any) -> None:
        self.collectors.append(collector)


class Gauge:
    """As prometheus_client's: a number with a unique name."""

    registered: t.ClassVar[dict[str, Gauge]] = {}

    def __init__(self, name: str, text: str) -> None:
        assert name not in self.registered
        self.text, self.value = text, 0.0
        self.registered[name] = self

    def set(self, value: float) -> None:
        self.value = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Gauge]:
    """The values that Prometheus would read, by name."""
    monkeypatch.setattr(Gauge, "registered", {})
    module = types.ModuleType("prometheus_client")
    core = types.ModuleType("prometheus_client.core")
    vars(core).update(GaugeMetricFamily=GaugeMetricFamily)
    vars(module).update(Gauge=Gauge, REGISTRY=Registry(), core=core)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", core)
    monkeypatch.setitem(sys.modules, "prometheus_client", module)
    monkeypatch.setitem(sys.modules, "fleet_history", types.ModuleType("fleet_history"))
    monkeypatch.delenv("FLEET_DATABASE", raising=False)
    return Gauge.registered


@pytest.fixture
def history(gauges: dict[str, Gauge]) -> types.ModuleType:
    """Module fleet_history, of a gateway without a database."""
    return load("fleet_history")


@pytest.fixture
def gateway(
    clients: types.ModuleType,
    history: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> types.ModuleType:
    """Module fleet_gateway, with a file of clients in ``tmp_path``."""
    for name in ("fleet_budgets", "fleet_cache", "fleet_costs", "fleet_figures"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        load(name)
    monkeypatch.setenv("FLEET_CLIENTS", str(tmp_path / "clients.json"))
    monkeypatch.setenv("FLEET_CACHED_MODELS", json.dumps(["cached"]))
    monkeypatch.setenv("ENGINE_API_KEY", "sk-of-the-host-itself")
    monkeypatch.setenv("FLEET_TARIFF", json.dumps({"prices": {"m": [0.0, 0.001]}, "output_tokens": 100}))
    # With a Redis: tests/integration/gateway.
    monkeypatch.delenv("REDIS_URL", raising=False)
    roles = types.SimpleNamespace(INTERNAL_USER="internal_user")
    guarded: list[bool] = []
    modules: dict[str, dict[str, t.Any]] = {
        "fastapi": {"Request": object},
        "litellm": {},
        "litellm.integrations": {},
        "litellm.integrations.custom_logger": {"CustomLogger": CustomLogger},
        "litellm.proxy": {},
        "litellm.proxy._types": {
            "LitellmUserRoles": roles,
            "ProxyException": ProxyException,
            "UserAPIKeyAuth": UserAPIKeyAuth,
        },
        "redis": {},
        "redis.asyncio": {},
        "request_guard": {"guard_applications": lambda checks_media: guarded.append(checks_media), "guarded": guarded},
        "fleet_gateway": {},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    vars(sys.modules["redis"])["asyncio"] = sys.modules["redis.asyncio"]
    return load("fleet_gateway")
