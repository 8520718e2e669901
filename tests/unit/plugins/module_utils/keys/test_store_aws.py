from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core import keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys.origin import keys_digest
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import Content
from ansible_collections.inference.fleet.plugins.module_utils.keys.store_aws import (
    SecretOptions,
    SecretsManagerKeyStore,
)

from tests.unit.plugins.module_utils.keys.aws_store import PREFIX, REGION, Aws, aws, moto, quick, refuse_second_value
from tests.unit.plugins.module_utils.keys.key_stores import ELSEWHERE, GONE, ME, NOW, later

__all__ = ["aws", "moto", "quick"]

DAY = 86400
LIMITED = {"name": "a", "models": ["m2", "m1"], "requests_per_minute": 60, "expires": "2027-01-31"}

#: A year of a fleet's keys: when, what, and which client.
LIFE: list[tuple[float, str, list[str], dict[str, t.Any]]] = [
    (0, "present", [], {"clients": [LIMITED, {"name": "b"}]}),
    (10, "present", [], {"clients": [{"name": "a"}, {"name": "b", "max_concurrent": 4}, {"name": "c"}]}),
    (30 * DAY, "pending", ["a", "b"], {"rotation_id": "r1"}),
    (30 * DAY + 9, "finished", [], {"overlap": "24h"}),
    (30 * DAY + 20, "completed", [], {}),
    (31 * DAY + 20, "retired", [], {}),
    (31 * DAY + 30, "pending", [], {"max_age": "30d"}),
    (31 * DAY + 40, "finished", [], {"overlap": "0"}),
    (31 * DAY + 50, "completed", [], {}),
    (32 * DAY, "pending", ["a"], {}),
    (32 * DAY + 5, "withdrawn", [], {}),
    (32 * DAY + 9, "completed", [], {}),
    (33 * DAY, "pending", ["a"], {"rotation_id": "r4"}),
    (33 * DAY + 1, "finished", [], {"compromised": True}),
    (33 * DAY + 2, "absent", ["b"], {}),
    (33 * DAY + 3, "completed", [], {}),
    (34 * DAY, "present", ["a"], {"exclusive": True}),
]


def shape(whole: Content) -> t.Any:
    """A content without its random parts and its holder."""
    clients = {
        name: (
            [(slot, dataclasses.replace(key, key="", id="", rotation="")) for slot, key in client.slots()],
            client.limits,
            [dataclasses.replace(key, sha256="") for key in client.retired],
        )
        for name, client in whole.clients.items()
    }
    rotation = whole.rotation and (whole.rotation.step, whole.rotation.clients, whole.rotation.started)
    removed = sorted((key.client, key.retired, key.created) for key in whole.removed)
    return (clients, rotation, [one.step for one in whole.ended], removed, whole.missing, whole.leftovers, whole.exists)


def live(whole: Content) -> dict[str, str]:
    return {key.sha256: name for name, client in whole.clients.items() for _slot, key in client.live()}


def dead(whole: Content) -> set[str]:
    return {key.sha256 for key in whole.retired()}


def go(aws: Aws, step: tuple[float, str, list[str], dict[str, t.Any]]) -> dict[str, t.Any]:
    aws.seconds, state, names, params = step
    return aws.run(state, *names, **params)


States = list[tuple[bytes, Content]]


@pytest.fixture(scope="module")
def lived() -> States:
    return []


@pytest.fixture
def life(quick: Aws, lived: States) -> States:
    """Before each step of LIFE, and after the last: what is in AWS, and the store's content."""
    if not lived:
        quick.holder = GONE
        lived.append((quick.snapshot(), quick.load()))
        for step in LIFE:
            assert go(quick, step)["changed"]
            lived.append((quick.snapshot(), quick.load()))
    return lived


def test_no_store_is_one_that_was_not_made(aws: Aws) -> None:
    assert aws.load() == Content(exists=False)
    assert aws.run("read")["clients"] == []


def test_each_client_has_a_secret_that_a_consumer_can_read(aws: Aws) -> None:
    result = aws.run("present", clients=[LIMITED, {"name": "b"}], tags={"team": "ml"}, kms_key_id="alias/fleet")
    assert result["changed"]
    value = aws.boto.get_secret_value(SecretId=f"{PREFIX}/a", VersionStage="AWSCURRENT")
    key = json.loads(value["SecretString"])["key"]
    shown = [(item["name"], item["sha256"], item["slot"]) for item in result["hashes"]]
    assert ("a", keys.sha256(key), "current") in shown
    description = aws.boto.describe_secret(SecretId=f"{PREFIX}/a")
    tags = {tag["Key"]: tag["Value"] for tag in description["Tags"]}
    assert tags["team"] == "ml"
    assert tags["inference-fleet:requests_per_minute"] == "60"
    assert description["KmsKeyId"] == "alias/fleet"
    assert key not in aws.boto.get_secret_value(SecretId=f"{PREFIX}/_fleet")["SecretString"]
    shown = result["clients"][0]
    assert (shown["models"], shown["requests_per_minute"]) == (["m1", "m2"], 60)
    assert shown["expires"] == "2027-01-31T00:00:00Z"
    again = aws.run("present", clients=[LIMITED, {"name": "b"}])
    assert not again["changed"]
    assert again["hashes"] == result["hashes"]


def test_the_labels_are_the_rotations_states(aws: Aws) -> None:
    aws.run("present", "a")
    first = aws.stages("a")["AWSCURRENT"]
    aws.run("pending", "a", rotation_id="r1")
    new = aws.stages("a")["AWSPENDING"]
    assert aws.stages("a") == {"AWSCURRENT": first, "AWSPENDING": new}
    aws.run("finished", overlap="24h")
    assert aws.stages("a") == {"AWSCURRENT": new, "AWSPREVIOUS": first}
    aws.run("retired", "a", force=True)
    assert aws.stages("a") == {"AWSCURRENT": new, "AWSPREVIOUS": first}
    aws.run("completed")
    assert aws.stages("a") == {"AWSCURRENT": new}
    aws.run("pending", "a", rotation_id="r2")
    aws.run("withdrawn")
    assert aws.stages("a") == {"AWSCURRENT": new}


def test_the_version_follows_from_rotation_and_client(aws: Aws) -> None:
    aws.run("present", "a", "b")
    aws.run("pending", "a", "b", rotation_id="r1")
    versions = {name: aws.stages(name)["AWSPENDING"] for name in "ab"}
    assert versions == {name: keys.sha256(f"r1/{name}")[:32] for name in "ab"}


def test_check_mode_only_reads(aws: Aws) -> None:
    steps: list[tuple[str, list[str], dict[str, t.Any]]] = [
        ("present", ["a"], {}),
        ("pending", ["a"], {}),
        ("finished", [], {"overlap": "0"}),
        ("completed", [], {}),
        ("absent", ["a"], {}),
    ]
    for state, names, params in steps:
        aws.calls.clear()
        result = aws.run(state, *names, check=True, **params)
        assert result["changed"]
        assert aws.calls
        assert aws.writes() == 0
        would = [action.split()[0] for action in result["actions"]]
        assert [action.split()[0] for action in aws.run(state, *names, **params)["actions"]] == would


def test_repeated_steps_write_nothing(aws: Aws) -> None:
    for step in LIFE:
        go(aws, step)
        if step[1] == "withdrawn" or step[1] == "completed":
            continue
        aws.calls.clear()
        assert not go(aws, step)["changed"]
        assert aws.writes() == 0


@pytest.mark.parametrize("number", range(len(LIFE)), ids=[f"{number}-{step[1]}" for number, step in enumerate(LIFE)])
def test_a_crash_between_any_two_calls_is_repaired_by_a_rerun(quick: Aws, life: States, number: int) -> None:
    (snapshot, before), (_after, expected) = life[number], life[number + 1]
    # A crash before the first write has changed nothing.
    for nth in range(2, 100):
        quick.restore(snapshot)
        quick.holder = GONE
        if not quick.killed_before_write(nth, lambda: go(quick, LIFE[number])):
            break
        there = quick.load()
        # A client with a valid key still has one, and a revoked key stays revoked.
        staying = {digest: name for digest, name in live(before).items() if digest not in dead(expected)}
        assert staying.items() <= live(there).items()
        assert not dead(before) & set(live(there))
        # The next process is another one.
        quick.holder = ME
        go(quick, LIFE[number])
        now = quick.load()
        assert shape(now) == shape(expected)
        assert not now.writing
        assert staying.items() <= live(now).items()
        assert all(len(client.live()) <= 2 for client in now.clients.values())
        for name in now.clients:
            stages = quick.stages(name)
            assert stages.get("AWSPENDING") in (None, stages["AWSCURRENT"]) or now.clients[name].pending
    assert nth == quick.writes() + 1


def test_a_crash_keeps_the_pending_key_that_it_made(quick: Aws) -> None:
    quick.run("present", "a", "b", "c")
    snapshot = quick.snapshot()
    made = []
    for nth in range(1, 100):
        quick.restore(snapshot)
        quick.holder = GONE
        if not quick.killed_before_write(nth, lambda: quick.run("pending", "a", "b", "c")):
            break
        pending = {name: client.pending for name, client in quick.load().clients.items() if client.pending}
        made.append(len(pending))
        quick.holder = ME
        quick.run("pending", "a", "b", "c")
        clients = quick.load().clients
        assert all(clients[name].pending == key for name, key in pending.items())
    # It must write who rotates twice, before and after.
    assert made == [0, 0, 0, 1, 2, 3, 3]


def other_run(aws: Aws, nth: int, do: t.Callable[[], t.Any]) -> list[t.Any]:
    """Let another process act before the nth of the next calls; return its result."""
    came: list[t.Any] = []

    def interfere(calls: int, _writes: int, operation: str) -> None:
        if calls == nth - 1 and not came:
            came.append(None)
            mine, aws.holder = aws.holder, ELSEWHERE
            try:
                came[0] = do()
            except FleetError as error:
                came[0] = error
            finally:
                aws.holder = mine

    aws.calls.clear()
    aws.before = interfere
    return came


def attempt(do: t.Callable[[], t.Any]) -> t.Any:
    try:
        return do()
    except FleetError as error:
        return error


@pytest.mark.parametrize("theirs", [["a"], ["b"], ["a", "b"]])
def test_of_two_rotations_at_once_one_is_refused_and_nothing_is_lost(quick: Aws, theirs: list[str]) -> None:
    quick.run("present", "a", "b")
    snapshot, first = quick.snapshot(), live(quick.load())
    who_won = set()
    for nth in range(1, 100):
        quick.restore(snapshot)
        came = other_run(quick, nth, lambda: quick.run("pending", *theirs))
        mine = attempt(lambda: quick.run("pending", "a", "b"))
        quick.before = None
        if not came:
            break
        assert sorted(isinstance(one, FleetError) for one in (mine, came[0])) == [False, True]
        lost, won = (mine, came[0]) if isinstance(mine, FleetError) else (came[0], mine)
        who_won.add("me" if won is mine else "they")
        said = "eve on elsewhere" if lost is mine else "ops on here"
        assert f"is in progress (step pending), begun by {said}, process 100 at {NOW}" in lost.message
        whole = quick.load()
        assert whole.rotation
        assert whole.rotation.id == won["rotation"]["id"]
        assert first.items() <= live(whole).items()
        pending = {name: client.pending.rotation for name, client in whole.clients.items() if client.pending}
        assert pending == dict.fromkeys(won["rotation"]["clients"], whole.rotation.id)
    assert who_won == {"me", "they"}


STEPS_BESIDE = [
    ("present", ["c"], {}),
    ("present", [], {"clients": [{"name": "a", "requests_per_minute": 9}]}),
    ("absent", ["b"], {}),
]


@pytest.mark.parametrize("theirs", STEPS_BESIDE, ids=["add", "change", "remove"])
@pytest.mark.parametrize("number", [2, 3, 4], ids=["pending", "finished", "completed"])
def test_a_change_of_clients_at_any_moment_of_a_rotation_is_done_whole_or_refused(
    quick: Aws, number: int, theirs: tuple[str, list[str], dict[str, t.Any]]
) -> None:
    steps = [(0, "present", ["a", "b"], {}), LIFE[0], *LIFE[2:]]
    for former in steps[:number]:
        go(quick, former)
    snapshot, first = quick.snapshot(), live(quick.load())
    state, names, params = theirs
    when, step, rotated, more = steps[number]
    for nth in range(1, 100):
        quick.restore(snapshot)
        came = other_run(quick, nth, lambda: quick.run(state, *names, **params))
        mine = attempt(lambda: go(quick, steps[number]))
        quick.before = None
        if not came:
            break
        # A secret that is deleted meanwhile may fail the step, but not a rerun for the other clients.
        if isinstance(mine, FleetError) and state == "absent":
            mine = attempt(lambda: go(quick, (when, step, [name for name in rotated if name != "b"], more)))
        assert not isinstance(mine, FleetError)
        whole = quick.load()
        assert not whole.writing
        if isinstance(came[0], FleetError):
            # The rotation is the lock. It has begun before this step, or has been faster in it.
            assert "is in progress" in came[0].message
            assert sorted(whole.clients) == ["a", "b"]
            assert whole.clients["a"].limits.get("requests_per_minute") != 9
            continue
        assert number == 2 or step == "completed"
        gone = {"b"} if state == "absent" else set()
        assert sorted(whole.clients) == sorted({"a", "b", *names} - gone)
        assert not whole.leftovers
        assert {digest: name for digest, name in first.items() if name not in gone}.items() <= live(whole).items()
        if theirs[2]:
            assert whole.clients["a"].limits.get("requests_per_minute") == 9
        slots = sorted(slot for slot, _key in whole.clients["a"].slots())
        assert slots == [["current", "pending"], ["current", "previous"], ["current", "previous"]][number - 2]
        assert (whole.rotation is None) == (steps[number][1] == "completed")


def test_clients_that_two_add_at_once_are_both_there(quick: Aws) -> None:
    for existing in ([], ["z"]):
        quick.secrets.clear()
        if existing:
            quick.run("present", *existing)
        snapshot = quick.snapshot()
        for nth in range(1, 100):
            quick.restore(snapshot)
            came = other_run(quick, nth, lambda: quick.run("present", "a", "b"))
            mine = quick.run("present", "b", "c")
            quick.before = None
            if not came:
                break
            whole = quick.load()
            assert sorted(whole.clients) == sorted(["a", "b", "c", *existing])
            # Both got the existing key of b.
            written = [{item["sha256"] for item in one["hashes"] if item["name"] == "b"} for one in (mine, came[0])]
            assert written[0] == {whole.clients["b"].current.sha256}
            assert written[1] in (written[0], set())
        assert nth > 4


def test_a_writer_that_loses_every_race_fails(quick: Aws) -> None:
    quick.run("present", "a")
    busy = 0

    def interfere(_calls: int, _writes: int, operation: str) -> None:
        nonlocal busy
        if operation == "UpdateSecretVersionStage" and not busy % 2:
            busy += 1
            quick.run("present", "a", f"x{busy}", "b" if busy > 99 else "a1")
            busy += 1

    quick.before = interfere
    with pytest.raises(FleetError, match=r"Somebody else changed the key store .* That happened 5 times; run again"):
        quick.run("present", "a", "b")


def test_an_answer_that_was_lost_is_no_failure(aws: Aws) -> None:
    """boto3 repeats a call without an answer; the second time AWS refuses to move a label that is there already."""
    for step in LIFE:
        lost: list[str] = []

        # The call is made, then made again.
        def twice(model: t.Any, params: t.Any, lost: list[str] = lost, **_more: t.Any) -> None:
            if model.name == "UpdateSecretVersionStage" and not lost:
                lost.append(model.name)
                aws.boto.update_secret_version_stage(**json.loads(params["body"]))

        aws.boto.meta.events.register_last("before-call.secretsmanager", twice, unique_id="twice")
        assert go(aws, step)["changed"]
        aws.boto.meta.events.unregister("before-call.secretsmanager", unique_id="twice")
        assert lost or step[1] == "present"


def test_a_version_of_the_same_step_that_is_there_already_counts(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS refuses a second value for a version, also one that moto would replace because it is pending."""
    aws.run("present", "a")
    aws.run("pending", "a", rotation_id="r1")
    key = aws.load().clients["a"].pending
    assert key
    real = SecretsManagerKeyStore._load_client
    loads = 0

    def stale(self: SecretsManagerKeyStore, name: str) -> t.Any:
        nonlocal loads
        loads += 1
        whole = real(self, name)
        if loads == 1 and not isinstance(whole, str):
            self._secrets[name].stages.pop("AWSPENDING")
            return dataclasses.replace(whole, pending=None)
        return whole

    monkeypatch.setattr(SecretsManagerKeyStore, "_load_client", stale)
    refuse_second_value(monkeypatch)
    aws.run("pending", "a", rotation_id="r1")
    assert loads > 1
    assert aws.load().clients["a"].pending == key


def test_a_label_that_was_taken_is_put_back(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.run("present", "a")
    aws.run("pending", "a", rotation_id="r1")
    key = aws.load().clients["a"].pending
    # Another process moved AWSPENDING to another version, and removed it again.
    aws.boto.put_secret_value(SecretId=f"{PREFIX}/a", SecretString="x", VersionStages=["AWSPENDING"])
    other = aws.stages("a")["AWSPENDING"]
    aws.boto.update_secret_version_stage(SecretId=f"{PREFIX}/a", VersionStage="AWSPENDING", RemoveFromVersionId=other)
    assert aws.load().clients["a"].pending is None
    refuse_second_value(monkeypatch)
    aws.run("pending", "a", rotation_id="r1")
    assert aws.load().clients["a"].pending == key


def test_a_removed_client_can_be_restored_but_not_created_again(aws: Aws) -> None:
    aws.run("present", "a", "b")
    digest = aws.load().clients["a"].current.sha256
    result = aws.run("absent", "a", recovery_days=7)
    assert [key["sha256"] for key in result["retired"]] == [digest]
    assert not aws.run("absent", "a")["changed"]
    with pytest.raises(FleetError, match=rf"{PREFIX}/a .* scheduled for deletion\. Restore it \(aws .*--secret-id"):
        aws.run("present", "a")
    aws.boto.restore_secret(SecretId=f"{PREFIX}/a")
    result = aws.run("present", "a")
    assert digest in {item["sha256"] for item in result["hashes"]}
    assert result["retired"] == []


def test_secrets_that_are_there_without_the_fleets_are_taken_as_they_are(aws: Aws) -> None:
    aws.run("present", "a", "b")
    hashes = aws.run("read")["hashes"]
    aws.boto.delete_secret(SecretId=f"{PREFIX}/_fleet", ForceDeleteWithoutRecovery=True)
    with pytest.raises(FleetError, match="has not been made yet, so there is nothing to do with state pending"):
        aws.run("pending", "a")
    assert aws.run("present", "a", "b")["hashes"] == hashes


def test_a_foreign_secret_is_left_alone(aws: Aws) -> None:
    aws.boto.create_secret(Name=f"{PREFIX}/a", SecretString="their own")
    with pytest.raises(FleetError, match=f"Secret {PREFIX}/a in .*{REGION} was not made by this collection"):
        aws.run("present", "a")
    assert aws.boto.get_secret_value(SecretId=f"{PREFIX}/a")["SecretString"] == "their own"


def lose(aws: Aws, **how: t.Any) -> None:
    aws.run("present", "a", "b")
    aws.boto.delete_secret(SecretId=f"{PREFIX}/a", **how)


@pytest.mark.parametrize("state", ["read", "pending", "finished", "retired", "completed", "withdrawn"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"ForceDeleteWithoutRecovery": True}, "of client a is missing .* Remove the client with state absent"),
        ({"RecoveryWindowInDays": 7}, "is scheduled for deletion. Restore it"),
    ],
)
def test_a_secret_that_is_gone_stops_whatever_would_lock_its_client_out(
    aws: Aws, state: str, how: dict[str, t.Any], message: str
) -> None:
    lose(aws, **how)
    with pytest.raises(FleetError, match=message):
        aws.run(state, overlap="0", max_age="0")
    with pytest.raises(FleetError, match=message):
        aws.run("present", "a", "b", "c")


@pytest.mark.parametrize("params", [("absent", ["a"], {}), ("present", ["b"], {"exclusive": True})])
@pytest.mark.parametrize("how", [{"ForceDeleteWithoutRecovery": True}, {"RecoveryWindowInDays": 7}])
def test_a_client_whose_secret_is_gone_can_be_removed(
    aws: Aws, how: dict[str, t.Any], params: tuple[str, list[str], dict[str, t.Any]]
) -> None:
    lose(aws, **how)
    state, names, more = params
    assert aws.run(state, *names, **more)["actions"] == ["remove a, whose keys the store has lost"]
    assert [client["name"] for client in aws.run("read")["clients"]] == ["b"]


def test_the_fleets_secret_that_is_being_deleted_is_to_be_restored(aws: Aws) -> None:
    aws.run("present", "a")
    aws.boto.delete_secret(SecretId=f"{PREFIX}/_fleet")
    with pytest.raises(FleetError, match=f"Secret {PREFIX}/_fleet .* is scheduled for deletion"):
        aws.run("present", "a")


@pytest.mark.parametrize("secret", ["a", "_fleet"])
@pytest.mark.parametrize(
    "value", ["sk-SECRET", "", "[]", "{}", '{"key": "sk-SECRET"}', '{"version": "sk-SECRET"}', '{"version": 1}']
)
def test_an_invalid_value_is_not_repeated(aws: Aws, secret: str, value: str) -> None:
    aws.run("present", "a")
    aws.secrets[f"{PREFIX}/{secret}"].versions[aws.stages(secret)["AWSCURRENT"]]["secret_string"] = value
    with pytest.raises(FleetError, match=f"value of secret {PREFIX}/{secret} .* is not the JSON") as caught:
        aws.run("read")
    assert "SECRET" not in caught.value.message


def test_binary_and_missing_values_are_reported(aws: Aws) -> None:
    aws.run("present", "a")
    aws.boto.put_secret_value(SecretId=f"{PREFIX}/a", SecretBinary=b"x", VersionStages=["AWSPENDING"])
    with pytest.raises(FleetError, match="is not the JSON"):
        aws.run("read")
    del aws.secrets[f"{PREFIX}/a"].versions[aws.stages("a")["AWSPENDING"]]["secret_binary"]
    with pytest.raises(FleetError, match=r"Version .* has no value\. Switch its own rotation .* off"):
        aws.run("read")


def test_a_store_of_a_later_version_is_not_touched(aws: Aws) -> None:
    aws.run("present", "a")
    aws.secrets[f"{PREFIX}/_fleet"].versions[aws.stages("_fleet")["AWSCURRENT"]]["secret_string"] = '{"version": 2}'
    with pytest.raises(FleetError, match="has version 2; this collection knows version 1"):
        aws.run("present", "b")


def test_the_fleet_has_the_version_of_its_limits_before_a_client_has_one(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an earlier collection could remove a limit that is new to it."""
    aws.run("present", "a")
    whole = aws.store().load()
    row = dataclasses.replace(schema.LIMITS[1], name="images_per_minute", since=2)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "LIMITS", (*schema.LIMITS, row))
        store = aws.store()
        before = store.load()
        client = dataclasses.replace(before.clients["a"], limits=Limits({row.name: 30}))
        after = dataclasses.replace(before.with_clients({"a": client}), generation=before.generation + 1)
        tagged: list[int] = []
        call = store._aws.call

        def watch(operation: str, *words: t.Any, **more: t.Any) -> t.Any:
            if operation == "tag_resource":
                tagged.append(store._load_fleet()[0]["version"])
            return call(operation, *words, **more)

        patch.setattr(store._aws, "call", watch)
        store.save(before, after)
        assert tagged == [2]
        assert aws.store().load().clients["a"] == client
    for state in ("read", "present"):
        with pytest.raises(FleetError, match=r"has version 2; this collection knows version 1\. Nothing was changed"):
            aws.run(state, "a")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "LIMITS", (*schema.LIMITS, row))
        store = aws.store()
        store.save(store.load(), dataclasses.replace(whole, generation=before.generation + 2))
    assert aws.store().load().clients == whole.clients


def test_tags_that_others_changed_are_reported(aws: Aws) -> None:
    aws.run("present", "a")
    aws.boto.tag_resource(SecretId=f"{PREFIX}/a", Tags=[{"Key": "inference-fleet:max_concurrent", "Value": "several"}])
    with pytest.raises(FleetError, match="Remove those whose names begin with inference-fleet:"):
        aws.run("read")
    aws.boto.untag_resource(SecretId=f"{PREFIX}/a", TagKeys=["inference-fleet:client"])
    with pytest.raises(FleetError, match="was not made by this collection"):
        aws.run("read")


def test_a_fleet_has_room_for_thousands_of_names_and_says_when_there_is_none(aws: Aws) -> None:
    aws.run("present", "a")
    store = aws.store()
    store.load()
    store._save_fleet([f"client-{number:04}" for number in range(3000)], [], Content(), 1)
    with pytest.raises(FleetError, match="has too many clients"):
        store._save_fleet([f"client-with-a-long-name-{number:06}" for number in range(3000)], [], Content(), 1)


@pytest.mark.parametrize("prefix", ["", "/", "a/", "/a", "a//b", "a b", "x" * 401, "sk-SECRET"])
def test_what_is_no_prefix(aws: Aws, prefix: str) -> None:
    with pytest.raises(FleetError, match="prefix is") as caught:
        aws.run("read", prefix=prefix)
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize("days", [0, 6, 31])
def test_the_days_that_aws_does_not_take(aws: Aws, days: int) -> None:
    with pytest.raises(FleetError, match=f"recovery_days is {days}. Secrets Manager takes 7 to 30"):
        SecretsManagerKeyStore(aws.store()._aws, SecretOptions(PREFIX, recovery_days=days))


def test_a_year_of_a_fleet(life: States) -> None:
    whole = life[-1][1]
    assert sorted(whole.clients) == ["a"]
    assert [one.step for one in whole.ended] == ["finished", "finished", "withdrawn", "finished"]
    # Of a: the first key, that of r1, and the one that was withdrawn; of b and c: both of theirs.
    assert [key.compromised for key in whole.clients["a"].retired].count(True) == 1
    assert sorted({key.client for key in whole.removed}) == ["b", "c"]
    assert all(len(client.live()) == 1 for client in whole.clients.values())
    assert later(34 * DAY) == max(key.retired for key in whole.removed)


def contents_by_generation(results: t.Iterable[t.Any]) -> dict[int, set[str]]:
    """What edges would take, by its generation. They refuse a content that is not settled."""
    found: dict[int, set[str]] = {}
    for result in results:
        if isinstance(result, dict) and result["store"]["id"] and result["store"]["settled"]:
            found.setdefault(result["store"]["generation"], set()).add(keys_digest(result["hashes"]))
    return found


@pytest.mark.parametrize("theirs", ["read", "present"])
@pytest.mark.parametrize("number", range(len(LIFE)), ids=[f"{number}-{step[1]}" for number, step in enumerate(LIFE)])
def test_a_generation_has_one_content_whenever_it_is_read(quick: Aws, life: States, number: int, theirs: str) -> None:
    for nth in range(1, 200):
        quick.restore(life[number][0])
        quick.holder = GONE
        read = [quick.run("read")]
        came = other_run(quick, nth, lambda: quick.run(theirs))
        read.append(attempt(lambda: go(quick, LIFE[number])))
        quick.before = None
        if not came:
            break
        read += [came[0], quick.run("read")]
        assert all(len(contents) == 1 for contents in contents_by_generation(read).values())
        assert max(contents_by_generation(read)) == read[-1]["store"]["generation"]
        assert read[-1]["store"]["settled"]
    assert nth > 3


def test_what_changes_while_it_is_read_is_of_no_generation(quick: Aws) -> None:
    quick.run("present", "a", "b")
    snapshot = quick.snapshot()
    for nth in range(1, 100):
        quick.restore(snapshot)
        came = other_run(quick, nth, lambda: quick.run("present", "c", "b", exclusive=True))
        mine = quick.run("read")
        quick.before = None
        if not came:
            break
        assert all(
            len(contents) == 1 for contents in contents_by_generation([mine, came[0], quick.run("read")]).values()
        )
    assert nth > 3
