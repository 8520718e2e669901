"""No message, diff or result has a key in it: every place that raises an error is reached, with real keys around."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder as key_holder
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder

from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.module_utils.keys.aws_store import PREFIX, REGION, Aws, aws, moto, refuse_second_value
from tests.unit.plugins.module_utils.keys.key_stores import A_KEY, ELSEWHERE, ME, later, watched

__all__ = ["aws", "moto"]

MODULE_UTILS = Path(__file__).resolve().parents[4] / "plugins" / "module_utils"
SOURCES = [
    MODULE_UTILS.parent / "modules" / "api_key.py",
    *(
        MODULE_UTILS / f"{name}.py"
        for name in (
            "keys/store",
            "keys/store_aws",
            "keys/store_file",
            "keys/tags",
            "core/keys",
            "keys/rotation",
            "keys/secrets_manager",
            "core/times",
        )
    ),
]
#: These read what an edge is given, not what the store has.
NOT_OF_THE_STORE = {"check_hashes"}

PASTED = "sk-" + "PASTED" * 6
DAY = 86400


class Env:
    """A store in a file and one in AWS, with the same clients, and the module's whole output about them."""

    def __init__(self, run_module: RunModule, aws: Aws, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run_module = run_module
        self.aws = aws
        self.path = path
        self.patch = monkeypatch
        self.printed: list[str] = []

    def run(self, state: str, *names: str, backend: str = "file", check: bool = False, **params: t.Any) -> Result:
        where: dict[str, t.Any] = {"path": str(self.path)}
        if backend != "file":
            where = {"region": REGION, "prefix": PREFIX, "backend": backend}
        clients = params.pop("clients", [{"name": name} for name in names])
        given = {"state": state, "clients": clients, **where, **params}
        result = self._run_module("api_key", given, check=check, diff=True)
        self.printed.append(json.dumps({**result, "invocation": None}, ensure_ascii=False))
        return result

    def both(self, state: str, *names: str, **params: t.Any) -> Result:
        result = self.run(state, *names, backend="aws_secretsmanager", **params)
        return self.run(state, *names, **params) if self.path.exists() or state == "present" else result

    def cloud(self, state: str, *names: str, **params: t.Any) -> Result:
        return self.run(state, *names, backend="aws_secretsmanager", **params)

    def at(self, seconds: float) -> None:
        self.aws.seconds = seconds

    def by(self, holder: RotationHolder) -> None:
        self.aws.holder = holder

    def corrupt(self, secret: str, value: str) -> None:
        version = self.aws.stages(secret)["AWSCURRENT"]
        self.aws.secrets[f"{PREFIX}/{secret}"].versions[version]["secret_string"] = value

    def secrets(self) -> set[str]:
        """Every key that is in the stores, or was."""
        found = {PASTED}
        for path in self.path.parent.glob("*json*"):
            if path.is_file():
                found |= set(A_KEY.findall(path.read_text(errors="replace")))
        for secret in self.aws.secrets.values():
            for version in secret.versions.values():
                found |= set(A_KEY.findall(str(version)))
        return found


@pytest.fixture
def env(run_module: RunModule, aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    return Env(run_module, aws, tmp_path / "state" / "keys.json", monkeypatch)


def damage(env: Env) -> None:
    for text in ("", "{", json.dumps({"version": "x", "clients": {}})):
        env.path.write_text(text + env.path.read_text() if text == "{" else text)
        env.run("read")
    env.path.unlink()
    env.run("present", "a")


def version(env: Env) -> None:
    env.path.write_text(json.dumps({**json.loads(env.path.read_text()), "version": 2}))
    env.run("read")
    env.corrupt("_fleet", '{"version": 2}')
    env.cloud("read")


def rights(env: Env) -> None:
    env.path.chmod(0o644)
    env.run("read")
    env.path.chmod(0o600)
    env.path.parent.chmod(0o777)
    env.run("present", "c")
    env.path.parent.chmod(0o700)


def no_file(env: Env) -> None:
    other = env.path.with_name("directory.json")
    other.mkdir()
    env.run("read", path=str(other))
    env.run("read", path=str(env.path / "below"))
    env.run("present", "a", path=str(env.path / "below"))


def full_disk(env: Env) -> None:
    real = os.replace
    for failing in (".bak", ".json"):

        def replace(source: str, target: str, failing: str = failing) -> None:
            if target.endswith(failing):
                raise OSError(28, "No space left on device", target)
            real(source, target)

        with env.patch.context() as patch:
            patch.setattr(os, "replace", replace)
            env.run("present", "c", failing[1:])


def busy(env: Env) -> None:
    with env.patch.context() as patch:
        module = "ansible_collections.inference.fleet.plugins.module_utils.keys.store_file.locked"
        patch.setattr(module, lambda path: locked(path, timeout=0.1))
        with locked(f"{env.path}.lock"):
            env.run("present", "c")


def wrong_clients(env: Env) -> None:
    for clients in (
        [{"name": PASTED}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "models": [PASTED]}],
        [{"name": "a", "requests_per_minute": 0}],
        [{"name": "a", "expires": PASTED}],
        [{"name": "a", "budget": 0}],
        [{"name": "a", "budget_period": PASTED}],
        [{"name": "a", "budget_period": "5s"}],
    ):
        env.both("present", clients=clients)


def wrong_options(env: Env) -> None:
    env.both("present", exclusive=True)
    env.both("read", reveal=True)
    env.both("read", "a", "b", reveal=True)
    env.both("read", "a", reveal=True, which="previous")
    env.both("pending")
    env.both("pending", max_age=PASTED)
    env.both("pending", "a", rotation_id=PASTED)
    env.both("pending", "a", overlap="5s")
    env.both("pending", "nobody")
    env.both("finished", overlap="0")
    env.both("retired", force=True)
    env.cloud("read", prefix=PASTED)
    env.cloud("read", recovery_days=3)
    env.cloud("read", tags={f"{PASTED},": "x"})


def wrong_steps(env: Env) -> None:
    env.both("pending", "a", rotation_id="r1")
    env.both("finished")
    env.both("finished", compromised=True, overlap="24h")
    env.both("completed")
    env.both("pending", "b")
    env.both("pending", "a", rotation_id="r2")
    env.by(ELSEWHERE)
    env.both("pending", "a")
    env.by(ME)
    env.both("withdrawn")
    env.both("finished", overlap="24h")
    env.both("completed")
    env.both("pending", "a", rotation_id="r1")
    env.both("pending", "a", rotation_id="r3")
    env.both("finished", overlap="24h")
    env.both("completed")
    env.both("pending", "a")


def living_holder(env: Env) -> None:
    env.by(dataclasses.replace(ME, pid=1, pid_started=key_holder.start_ticks(1) or 0))
    env.both("pending", "a")
    env.by(ME)
    env.both("pending", "a")


def lost_pending_key(env: Env) -> None:
    env.both("pending", "a")
    document = json.loads(env.path.read_text())
    document["clients"]["a"]["pending"] = None
    env.path.write_text(json.dumps(document))
    env.run("finished", overlap="0")


def nothing_there(env: Env) -> None:
    env.run("pending", "a", path=str(env.path.with_name("other.json")))
    env.cloud("pending", "a", region="eu-west-1", prefix="another")
    env.run("read", path=None)
    env.cloud("read", region=None)


def lost_secret(env: Env) -> None:
    env.aws.boto.delete_secret(SecretId=f"{PREFIX}/a")
    env.cloud("read")
    env.cloud("absent", "a")
    env.cloud("present", "a")
    env.aws.boto.delete_secret(SecretId=f"{PREFIX}/_fleet")
    env.cloud("read")
    env.aws.boto.delete_secret(SecretId=f"{PREFIX}/_fleet", ForceDeleteWithoutRecovery=True)
    env.cloud("present", "b")


def foreign_secret(env: Env) -> None:
    for value in (PASTED, "{}", json.dumps({"key": PASTED})):
        env.corrupt("a", value)
        env.cloud("read")
    env.aws.boto.tag_resource(SecretId=f"{PREFIX}/b", Tags=[{"Key": "inference-fleet:max_concurrent", "Value": PASTED}])
    env.corrupt("a", json.dumps({"key": PASTED, "created": later(0), "rotation": ""}))
    env.cloud("read")
    env.aws.boto.untag_resource(SecretId=f"{PREFIX}/a", TagKeys=["inference-fleet:client"])
    env.cloud("read")
    env.corrupt("_fleet", json.dumps({"version": 1, "clients": [PASTED]}))
    env.cloud("read")


def empty_version(env: Env) -> None:
    env.aws.boto.put_secret_value(SecretId=f"{PREFIX}/a", SecretBinary=b"x", VersionStages=["AWSPENDING"])
    del env.aws.secrets[f"{PREFIX}/a"].versions[env.aws.stages("a")["AWSPENDING"]]["secret_binary"]
    env.cloud("read")


def too_much(env: Env) -> None:
    env.cloud("present", clients=[{"name": "a", "models": [f"{number}{'x' * 120}" for number in range(120)]}])
    module = "ansible_collections.inference.fleet.plugins.module_utils.keys.store_aws._MAX_BYTES"
    with env.patch.context() as patch:
        patch.setattr(module, 10)
        env.cloud("present", "c")


def others_at_once(env: Env) -> None:
    """Every other writer is faster: with a new store, a new key of the same step, and another store's content."""
    nested = 0

    def interfere(_calls: int, _writes: int, operation: str) -> None:
        nonlocal nested
        if nested % 2:
            return
        if operation == "UpdateSecretVersionStage" or (operation == "CreateSecret" and not nested):
            nested += 1
            env.aws.run("present", "a", f"x{nested}")
            nested += 1

    env.aws.before = interfere
    env.cloud("present", "z1", prefix=PREFIX)
    env.aws.secrets.clear()
    nested = 0
    env.cloud("present", "z2")
    env.aws.before = None
    env.cloud("pending", "a")
    env.aws.boto.update_secret_version_stage(
        SecretId=f"{PREFIX}/a", VersionStage="AWSPENDING", RemoveFromVersionId=env.aws.stages("a")["AWSPENDING"]
    )
    with env.patch.context() as patch:
        refuse_second_value(patch)
        env.cloud("pending", "a")


def client_error(code: str, operation: str) -> Exception:
    exceptions = importlib.import_module("botocore.exceptions")
    error: Exception = exceptions.ClientError({"Error": {"Code": code, "Message": f"{PASTED} is wrong"}}, operation)
    return error


def refusals(env: Env) -> None:
    for code in ("AccessDeniedException", "ThrottlingException", "SomethingNew", "InvalidRequestException"):
        for at in ("GetSecretValue", "CreateSecret", "PutSecretValue", "UpdateSecretVersionStage"):

            def refuse(_calls: int, _writes: int, operation: str, at: str = at, code: str = code) -> None:
                if operation == at:
                    raise client_error(code, operation)

            env.aws.before = refuse
            env.cloud("present", "c")
            env.cloud("pending", "a")
            env.aws.before = None
            env.cloud("withdrawn")
            env.cloud("completed")


def not_answered(env: Env) -> None:
    exceptions = importlib.import_module("botocore.exceptions")
    for error in (
        exceptions.NoCredentialsError(),
        exceptions.EndpointConnectionError(endpoint_url=f"http://{PASTED}@x"),
        exceptions.ParamValidationError(report=f"Invalid: {PASTED}"),
    ):

        def fail(_calls: int, _writes: int, operation: str, error: Exception = error) -> None:
            raise error

        env.aws.before = fail
        env.cloud("present", "c")
        env.aws.before = None


def no_connection(env: Env) -> None:
    from ansible_collections.inference.fleet.plugins.module_utils.keys import secrets_manager

    real = importlib.import_module
    with env.patch.context() as patch:
        patch.setattr(secrets_manager, "connect", REAL_CONNECT)
        env.cloud("read", profile=PASTED)
        env.cloud("read", region="no region")
        env.cloud("read", endpoint_url=PASTED)

        def missing(name: str) -> t.Any:
            if name.startswith("boto"):
                raise ImportError(name=name)
            return real(name)

        patch.setattr(importlib, "import_module", missing)
        env.cloud("read")


def _real_connect() -> t.Any:
    from ansible_collections.inference.fleet.plugins.module_utils.keys import secrets_manager

    return secrets_manager.connect


REAL_CONNECT = _real_connect()

SCENARIOS: list[t.Callable[[Env], None]] = [
    busy,
    damage,
    empty_version,
    foreign_secret,
    full_disk,
    living_holder,
    lost_pending_key,
    lost_secret,
    no_connection,
    no_file,
    not_answered,
    nothing_there,
    others_at_once,
    refusals,
    rights,
    too_much,
    version,
    wrong_clients,
    wrong_options,
    wrong_steps,
]


def raising_places() -> dict[str, list[tuple[int, int]]]:
    """The places of our errors: the first and the last line of each."""
    found: dict[str, list[tuple[int, int]]] = {}
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or function.name in NOT_OF_THE_STORE:
                continue
            for node in ast.walk(function):
                name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
                if name in ("FleetError", "AwsFailure", "StoreChanged") and isinstance(node, ast.Call):
                    found.setdefault(path.name, []).append((node.lineno, node.end_lineno or node.lineno))
    return found


def test_no_error_has_a_key_in_it(env: Env) -> None:
    reached: set[tuple[str, int]] = set()
    for scenario in SCENARIOS:
        env.at(0)
        env.by(ME)
        env.aws.secrets.clear()
        for left in env.path.parent.glob("*"):
            with contextlib.suppress(IsADirectoryError):
                left.unlink()
        assert "msg" not in env.both("present", "a", "b"), scenario
        before = env.secrets()
        with watched(env.patch) as places:
            scenario(env)
        assert places, f"{scenario.__name__} provoked nothing"
        reached |= places
        for printed in env.printed:
            assert not A_KEY.search(printed), scenario
            assert not [key for key in before | env.secrets() if key in printed], scenario
        env.printed.clear()
    missed = [
        f"{name}:{first}"
        for name, lines in raising_places().items()
        for first, last in lines
        if not any(file == name and first <= line <= last for file, line in reached)
    ]
    assert missed == []


def test_no_result_has_a_key_in_it_but_the_one_that_was_asked_for(env: Env) -> None:
    steps: list[tuple[float, str, tuple[str, ...], dict[str, t.Any]]] = [
        (0, "present", ("a", "b"), {}),
        (1, "read", (), {"max_age": "0"}),
        (2, "pending", ("a",), {}),
        (3, "finished", (), {"overlap": "24h"}),
        (4, "completed", (), {}),
        (DAY + 4, "retired", (), {}),
        (DAY + 5, "completed", (), {}),
        (DAY + 6, "pending", (), {"max_age": "1m"}),
        (DAY + 7, "withdrawn", (), {}),
        (DAY + 8, "completed", (), {}),
        (DAY + 9, "absent", ("b",), {}),
        (DAY + 10, "present", ("a", "c"), {"exclusive": True}),
    ]
    for seconds, state, names, params in steps:
        env.at(seconds)
        for check in (True, False):
            for backend in ("file", "aws_secretsmanager"):
                assert "msg" not in env.run(state, *names, backend=backend, check=check, **params)
    assert len(env.secrets()) > 8
    assert not any(key in printed for key in env.secrets() for printed in env.printed)
    for backend in ("file", "aws_secretsmanager"):
        result = env.run("read", "a", backend=backend, reveal=True)
        assert result["key"] in env.secrets()
        assert result["key"] not in json.dumps({**result, "key": ""})


def test_time_stands_still_here(env: Env) -> None:
    env.at(5)
    assert times.now() == later(5)
