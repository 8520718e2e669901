"""The controller's side of a rollout: the action plugin behind module rollout, on real journals and locks."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.action.rollout import ActionModule

from tests.unit.plugins.plugin_utils.aws.cloudwatch import answer_with, make_alarm, moto, raise_alarm
from tests.unit.plugins.plugin_utils.rollout.rollouts import staged, status

__all__ = ["moto"]

Result = dict[str, t.Any]
Hosts = dict[str, dict[str, t.Any]]


def host(pending: str = "its release changes", **more: t.Any) -> dict[str, t.Any]:
    """The facts that role rollout sets on a host."""
    facts = {"staged": [staged(pending)], "instances": [{"index": 0, "name": "vllm-0"}]}
    return {"rollout_facts": facts, "rollout_status": status(0), "rollout_claimed": {"refused": None}, **more}


class Run:
    """One run of ansible-playbook on some hosts."""

    def __init__(self, records: Path, hosts: Hosts) -> None:
        self.records = records
        self.hosts = hosts
        self.lost: set[str] = set()
        self.beyond: list[Result] = []
        #: Hosts beyond --limit, with their variables.
        self.outside: Hosts = {}

    def ask(self, state: str, *, check: bool = False, **arguments: t.Any) -> Result:
        args = {"state": state, "records": str(self.records), "waves": [1, "100%"], **arguments}
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.rollout")
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        variables = {
            "hostvars": {**self.hosts, **self.outside},
            "groups": {"ring_canary": []},
            "ansible_play_hosts_all": list(self.hosts),
            "ansible_play_hosts": [name for name in self.hosts if name not in self.lost],
            "rollout_status_beyond": {"results": self.beyond},
        }
        return action.run(task_vars=variables)

    def begin(self, **arguments: t.Any) -> tuple[Result, Result]:
        plan = self.ask("planned", **arguments)["plan"]
        return plan, self.ask("begun", plan=plan, **arguments)

    def journal(self, begun: Result) -> list[Result]:
        return [json.loads(line) for line in Path(begun["journal"]).read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "records", {"a": host(), "b": host(), "c": host("")})


def test_a_rollout_from_plan_to_page(run: Run) -> None:
    assert run.ask("locked")["held_by"] is None
    plan, begun = run.begin()
    assert plan["waves"] == [["a"], ["b"]]
    assert plan["turns"] == 4
    assert [row["host"] for row in plan["rows"]] == ["a", "b"]
    first = run.ask("next", plan=plan)
    assert (first["hosts"], first["self_test"], first["finished"]) == (["a"], "a", False)
    for name in "ab":
        with Path(begun["journal"]).open("a") as file:
            file.write(json.dumps({"at": 1, "event": "self_test", "host": name, "passed": True}) + "\n")
            file.write(json.dumps({"at": 1, "event": "outcome", "host": name, "outcome": "done", "message": ""}) + "\n")
    assert run.ask("next", plan=plan)["finished"]
    ended = run.ask("ended", plan=plan, traffic={"requests": {"failed": 0}})
    assert not ended["failed"]
    assert Path(ended["page"]).read_text().startswith("<!")
    assert json.loads((Path(ended["page"]).parent / "record.json").read_text())["outcome"] == "finished"
    assert [event["event"] for event in run.journal(begun)][-2:] == ["traffic", "end"]
    assert not (run.records / "lock.json").exists()


def test_check_mode_plans_and_writes_nothing(run: Run) -> None:
    assert run.ask("locked", check=True)["held_by"] is None
    planned = run.ask("planned", check=True)
    assert planned["changed"]
    assert planned["plan"]["waves"] == [["a"], ["b"]]
    run.ask("ended", check=True, plan=planned["plan"])
    assert not run.records.exists()


def test_a_converged_fleet_is_no_rollout(run: Run) -> None:
    run.hosts = {"c": host("")}
    planned = run.ask("planned", check=True)
    assert not planned["changed"]
    assert run.ask("ended", plan=planned["plan"])["page"] == ""
    assert [path.name for path in run.records.glob("*")] == []


def test_hosts_beyond_the_limit_carry_load(run: Run) -> None:
    run.hosts = {"a": host()}
    assert "downtime" in run.ask("planned")["plan"]["refusals"][0]
    assert run.ask("planned", accept_downtime=True)["plan"]["refusals"] == []
    run.beyond = [{"__rollout_host": "z", **status(0)}]
    assert run.ask("planned")["plan"]["refusals"] == []
    run.beyond = [{"__rollout_host": "z", "unreachable": True}]
    assert "downtime" in run.ask("planned")["plan"]["refusals"][0]


THEIRS: dict[str, t.Any] = {
    "id": "r0",
    "verb": "site",
    "who": "ben@desk",
    "controller": "desk:/r",
    "since": "2027-01-15T07:00:00Z",
    "held": True,
}
HELD = "Another rollout holds {}: site r0 by ben@desk on desk since 2027-01-15T07:00:00Z."


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_a_host_that_another_controller_has_just_claimed_is_left_to_it(run: Run) -> None:
    plan = run.ask("planned")["plan"]
    run.hosts["b"]["rollout_claimed"] = {"refused": THEIRS}
    contested = run.ask("contested", plan=plan)
    assert HELD.format("b") in contested["refused"]
    assert "Nothing was touched" in contested["refused"]
    assert not contested["again"]


@pytest.mark.parametrize("where", ["a", "c", "z"])
def test_nothing_begins_while_another_rollout_holds_any_host_of_the_kind(run: Run, where: str) -> None:
    held = {**status(0), "rollout": THEIRS}
    if where == "z":
        run.beyond = [{"__rollout_host": "z", **held}]
    else:
        run.hosts[where]["rollout_status"] = held
    (refusal,) = run.ask("planned")["plan"]["refusals"]
    assert HELD.format(where) in refusal
    assert "-e rollout_take_over=true" in refusal
    foreseen = run.ask("planned", check=True)["plan"]
    assert (foreseen["refusals"], foreseen["warnings"]) == ([], [refusal])
    taken = run.ask("planned", take_over=True)["plan"]
    assert (taken["refusals"], taken["taken_over"]) == ([], {where: {"id": "r0", "controller": "desk:/r"}})
    assert run.ask("contested", plan=taken)["refused"] == ""


def test_a_run_that_changes_nothing_needs_no_other_to_be_away(run: Run) -> None:
    for name in run.hosts:
        run.hosts[name] = host("")
    run.beyond = [{"__rollout_host": "z", **status(0), "rollout": THEIRS}]
    assert run.ask("planned")["plan"]["refusals"] == []


def test_of_two_that_claim_at_once_one_waits_and_one_gives_way(run: Run, pauses: list[float]) -> None:
    plan = run.ask("planned")["plan"]
    own = {**THEIRS, "id": plan["id"], "controller": plan["controller"], "since": "2027-01-15T07:00:00Z"}
    run.hosts["a"]["rollout_status"] = {**status(0), "rollout": own}
    run.beyond = [{"__rollout_host": "z", **status(0), "rollout": {**THEIRS, "since": "2027-01-15T07:00:01Z"}}]
    waiting = run.ask("contested", plan=plan)
    assert (waiting["again"], waiting["looks"], len(pauses)) == (True, 1, 1)
    given_up = run.ask("contested", plan=plan, looks=99)
    assert not given_up["again"]
    assert "Another rollout holds z" in given_up["refused"]
    run.beyond[0]["rollout"]["since"] = "2027-01-15T06:59:59Z"
    assert "Another rollout holds z" in run.ask("contested", plan=plan)["refused"]
    run.beyond[0]["rollout"]["held"] = False
    assert run.ask("contested", plan=plan) == {"refused": "", "again": False, "looks": 0}
    assert len(pauses) == 1


def test_a_rollout_that_walks_waits_for_others_to_go_and_stops_where_they_stay(run: Run, pauses: list[float]) -> None:
    plan, begun = run.begin()
    run.beyond = [{"__rollout_host": "z", **status(0), "rollout": THEIRS}]
    assert run.ask("contested", plan=plan, walking=True)["again"]
    assert run.ask("contested", plan=plan, walking=True, looks=99) == {"refused": "", "again": False, "looks": 0}
    stop = run.ask("next", plan=plan)["stop"]
    assert HELD.format("z") in stop
    assert "Not touched: a, b." in stop
    assert not [event for event in run.journal(begun) if event["event"] == "turn"]


def test_a_run_that_was_broken_off_goes_on_in_its_record(run: Run) -> None:
    plan, begun = run.begin(verb="rolling_restart")
    claim = {"id": plan["id"], "verb": "rolling_restart", "who": "x", "controller": plan["controller"]}
    claim |= {"since": plan["since"], "held": True, "finished": False, "targets": {}, "seconds": {}}
    run.hosts["a"]["rollout_status"] = {**status(0), "rollout": {**claim, "done": {"vllm-0": "t"}}}
    run.hosts["b"]["rollout_status"] = {**status(0), "rollout": {**claim, "done": {}}}
    again, gone_on = run.begin(verb="rolling_restart")
    assert again["resumed"]
    assert (again["id"], again["done"], again["waves"]) == (plan["id"], ["a"], [["b"]])
    assert gone_on["journal"] == begun["journal"]
    assert gone_on["journal_offset"] > 0
    assert [event["event"] for event in run.journal(begun)] == ["begin", "resume"]


def test_the_end_names_who_does_not_answer(run: Run) -> None:
    plan, begun = run.begin()
    run.lost = {"b"}
    run.hosts["c"]["rollout_proof"] = "the gate failed: no answer"
    ended = run.ask("ended", plan=plan)
    assert ended["failed"]
    assert "b does not answer. c: the gate failed: no answer" in ended["msg"]
    assert run.journal(begun)[-1]["outcome"] == "stopped"


def test_wrong_waves_are_refused_before_anything(run: Run) -> None:
    refused = run.ask("locked", waves=[])
    assert refused["failed"]
    assert "names no wave" in refused["msg"]
    assert not run.records.exists()


def test_a_record_that_cannot_be_written_is_explained(run: Run) -> None:
    run.records.parent.mkdir(exist_ok=True)
    run.records.write_text("a file where the directory should be")
    failed = run.ask("locked")
    assert failed["failed"]
    assert f"The rollout's record under {run.records} cannot be written" in failed["msg"]
    assert "set rollout_records" in failed["msg"]


def test_a_wave_is_watched_for_the_pause(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    plan, begun = run.begin()
    assert run.ask("baked", plan=plan, pause=7)["wave"] == 0
    run.ask("next", plan=plan)
    with Path(begun["journal"]).open("a") as file:
        file.write(json.dumps({"at": 1, "event": "outcome", "host": "a", "outcome": "done", "message": ""}) + "\n")
    assert run.ask("baked", plan=plan, pause=7)["wave"] == 1
    assert run.ask("baked", plan=plan, pause=7)["wave"] == 0
    assert slept == [7]


def reading(answers: int, errors: int = 0) -> Result:
    """What module serving_counters returns."""
    return {"changed": False, "at": 1.0, "edge": {"answers": answers, "errors": errors}, "instances": {}}


class Compared:
    """A rollout of a, then b and d, whose first wave was changed; c runs what it should."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch, **planned: t.Any) -> None:
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        run.hosts["d"] = host()
        self.run = run
        self.plan, self.begun = run.begin(**planned)
        run.ask("next", plan=self.plan)
        self.write(event="outcome", host="a", outcome="done", message="")

    def write(self, **event: t.Any) -> None:
        with Path(self.begun["journal"]).open("a") as file:
            file.write(json.dumps({"at": 1, **event}) + "\n")

    def watch(self, after: dict[str, Result], before: int = 1000, **arguments: t.Any) -> Result:
        """The pause: the result of state compared."""
        given = {"plan": self.plan, "pause": 60, "max_regression": 1.3, **arguments}
        wave = self.run.ask("watched", **given)["wave"]
        for name in self.run.hosts:
            self.run.hosts[name]["rollout_counters"] = reading(before, 10)
        baked = self.run.ask("baked", **given)
        for name, read in after.items():
            self.run.hosts[name]["rollout_counters"] = read
        return self.run.ask("compared", wave=wave, counters=baked["counters"], **given)


def test_a_wave_that_serves_worse_stops_before_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    well = reading(1200, 10)
    found = rollout.watch({"a": reading(1100, 60), "b": well, "c": well, "d": well})
    assert found["verdict"] == "worse"
    turn = run.ask("next", plan=rollout.plan)
    assert turn["hosts"] == []
    assert "The rollout stops before wave 2 of 2 (b, d); nothing of it was touched" in turn["stop"]
    assert "share of errors 50 % of 100 against 0 % of 600" in turn["stop"]
    (event,) = [one for one in run.journal(rollout.begun) if one["event"] == "evidence"]
    assert (event["wave"], event["limit"], event["verdict"]) == (1, 1.3, "worse")
    # c runs what it should already, and was not touched either.
    assert event["comparisons"][0]["untouched"] == ["b", "c", "d"]


def test_a_wave_that_serves_as_well_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    assert rollout.watch({name: reading(1200, 11) for name in "abcd"})["verdict"] == "fine"
    assert run.ask("next", plan=rollout.plan)["hosts"] == ["b", "d"]


def test_too_few_requests_are_recorded_and_stop_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    found = rollout.watch({"a": reading(1040, 50), "b": reading(1200, 10)})
    assert found["verdict"] == "inconclusive"
    assert "40 requests there and 200 on 3 untouched, and each side needs 50" in found["text"]
    assert run.ask("next", plan=rollout.plan)["hosts"] == ["b", "d"]


def test_a_host_that_vanished_in_the_pause_is_not_compared(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    run.lost = {"d"}
    found = rollout.watch({"a": reading(1100, 10), "b": reading(1200, 10), "c": {"unreachable": True}})
    assert found["text"].endswith("Not read: c, d.")


def test_drained_hosts_and_other_models_are_no_measure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    for name, model in {"a": "qwen", "b": "qwen", "c": "gemma", "d": "qwen"}.items():
        run.hosts[name]["rollout_status"]["instances"][0]["model"] = model
        run.hosts[name]["fleet_instance_type"] = "g6e.xlarge"
    run.hosts["d"]["rollout_status"]["edge"]["health"] = 503
    rollout.watch({name: reading(1200, 10) for name in "abcd"})
    (event,) = [one for one in run.journal(rollout.begun) if one["event"] == "evidence"]
    (one,) = event["comparisons"]
    assert (one["kind"], one["untouched"]) == ("qwen on g6e.xlarge", ["b"])


@pytest.mark.parametrize("arguments", [{"max_regression": 0}, {"max_regression": ""}, {"pause": 0}])
def test_it_can_be_turned_off(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, t.Any]) -> None:
    rollout = Compared(run, monkeypatch)
    assert rollout.watch({"a": reading(1100, 110)}, **arguments)["verdict"] == ""
    assert [one for one in run.journal(rollout.begun) if one["event"] == "evidence"] == []


def test_a_wave_is_compared_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    rollout.watch({})
    assert run.ask("watched", plan=rollout.plan, pause=60, max_regression=1.3)["wave"] == 0


def test_a_rollback_is_never_held_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Compared(run, monkeypatch)
    rollout.plan["verb"] = "rollback"
    assert rollout.watch({"a": reading(1100, 110)})["verdict"] == ""


def test_a_limit_that_is_none_ends_the_run_at_its_beginning(run: Run) -> None:
    refused = run.ask("locked", max_regression="much")
    assert refused["failed"]
    assert "rollout_max_regression is 'much'" in refused["msg"]


def test_hosts_go_in_the_order_of_their_names(run: Run) -> None:
    run.hosts = {name: host() for name in ("gpu-10", "gpu-9", "a-1", "gpu-1")}
    assert run.ask("planned", waves=[1, 1, 1, "100%"])["plan"]["waves"] == [["a-1"], ["gpu-1"], ["gpu-9"], ["gpu-10"]]


def test_the_plan_is_made_with_all_that_an_operator_may_say() -> None:
    """An argument that the role leaves out has the module's default, whatever -e sets."""
    tasks = yaml.safe_load((Path(__file__).parents[4] / "roles/rollout/tasks/plan.yml").read_text())
    (task,) = (task["inference.fleet.rollout"] for task in tasks if "inference.fleet.rollout" in task)
    named = {"verb", "waves", "resume", "resume_within", "max_load", "when_short", "take_over"}
    for name in named | {"accept_downtime", "accept_no_way_back"}:
        assert f"{{{{ rollout_{name} " in task[name]


@pytest.fixture
def watched(run: Run, moto: None) -> Run:
    """Hosts in us-east-1, and the alarm x."""
    for variables in run.hosts.values():
        variables["fleet_region"] = "us-east-1"
    make_alarm("x")
    return run


@pytest.mark.parametrize("check", [False, True])
def test_an_alarm_that_does_not_exist_ends_the_run_before_anything_is_touched(watched: Run, check: bool) -> None:
    refused = watched.ask("locked", check=check, stop_on_alarms=["x", "y"])
    assert refused["failed"]
    assert (
        refused["msg"] == "CloudWatch has no alarm y in us-east-1. Correct rollout_stop_on_alarms, or make the alarm."
    )
    assert not watched.records.exists()
    assert not watched.ask("locked", stop_on_alarms='["x"]').get("failed")


def test_an_alarm_in_another_region_of_the_fleet_exists_also_beyond_the_limit(watched: Run) -> None:
    make_alarm("y", region="eu-west-1")
    assert watched.ask("locked", stop_on_alarms=["x", "y"])["failed"]
    watched.outside["z"] = {"fleet_region": "eu-west-1"}
    assert not watched.ask("locked", stop_on_alarms=["x", "y"], fleet=["a", "z"]).get("failed")


def test_a_missing_right_ends_the_run_before_anything_is_touched(watched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, lambda _parameters: ("AccessDenied", ""))
    refused = watched.ask("locked", stop_on_alarms=["x"])
    assert "lack the right cloudwatch:DescribeAlarms on *" in refused["msg"]
    assert not watched.records.exists()


def test_an_alarm_that_is_raised_already_refuses_the_rollout(watched: Run) -> None:
    raise_alarm("x", "ALARM", "Threshold Crossed.")
    plan = watched.ask("planned", stop_on_alarms=["x"])["plan"]
    assert [text[:45] for text in plan["refusals"]] == ["CloudWatch alarm x in us-east-1 is in ALARM s"]
    forecast = watched.ask("planned", check=True, stop_on_alarms=["x"])["plan"]
    assert (forecast["refusals"], len(forecast["warnings"])) == ([], 1)
    assert watched.ask("planned")["plan"]["refusals"] == []


def test_a_run_that_changes_no_host_looks_at_no_alarm(watched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.hosts = {"c": {**host(""), "fleet_region": "us-east-1"}}
    raise_alarm("x", "ALARM")
    assert watched.ask("planned", stop_on_alarms=["x"])["plan"]["refusals"] == []


def test_a_rollback_is_the_way_out_of_an_alarm(watched: Run) -> None:
    raise_alarm("x", "ALARM")
    plan, _begun = watched.begin(verb="rollback", stop_on_alarms=["x"])
    assert plan["refusals"] == []
    assert watched.ask("next", plan=plan, stop_on_alarms=["x"])["stop"] == ""


def test_an_alarm_in_mid_rollout_stops_it_is_in_the_record_and_the_same_command_goes_on(watched: Run) -> None:
    plan, begun = watched.begin(stop_on_alarms=["x"])
    assert watched.ask("next", plan=plan, stop_on_alarms=["x"])["hosts"] == ["a"]
    _write(begun, {"event": "self_test", "host": "a", "passed": True}, _done("a"))
    raise_alarm("x", "ALARM", "Threshold Crossed: 7.0 > 5.0.")
    turn = watched.ask("next", plan=plan, stop_on_alarms=["x"])
    assert turn["hosts"] == []
    assert turn["stop"].startswith(
        "The rollout stops before wave 2 of 2 (b); nothing of it was touched, and the fleet keeps serving. "
        "CloudWatch alarm x in us-east-1 is in ALARM since 20"
    )
    assert "Threshold Crossed: 7.0 > 5.0." in turn["stop"]
    ended = watched.ask("ended", plan=plan, message=turn["stop"])
    assert ended["failed"]
    assert "CloudWatch alarm x in us-east-1 is in ALARM" in Path(ended["page"]).read_text()
    record = json.loads((Path(ended["page"]).parent / "record.json").read_text())
    assert (record["outcome"], record["message"]) == ("stopped", turn["stop"])
    assert record["variables"]["rollout_stop_on_alarms"] == ["x"]
    raise_alarm("x", "OK")
    assert watched.ask("next", plan=plan, stop_on_alarms=["x"])["hosts"] == ["b"]


def test_credentials_that_expire_in_mid_rollout_stop_it_before_the_next_turn(
    watched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _begun = watched.begin(stop_on_alarms=["x"])
    with monkeypatch.context() as expired:
        answer_with(expired, lambda _parameters: ("ExpiredToken", "The security token is expired"))
        stop = watched.ask("next", plan=plan, stop_on_alarms=["x"])["stop"]
    assert stop == (
        "The rollout stops before wave 1 of 2 (a); nothing of it was touched, and the fleet keeps serving. The alarms "
        "of rollout_stop_on_alarms cannot be read: DescribeAlarms in us-east-1 failed (ExpiredToken). The credentials "
        "have expired. Log in again (aws sso login, or renew the session), then run again. The same command goes on "
        "from here."
    )
    assert watched.ask("next", plan=plan, stop_on_alarms=["x"])["hosts"] == ["a"]


def test_an_alarm_without_data_is_in_the_plan_and_in_the_journal_once_it_is_so(watched: Run) -> None:
    plan, begun = watched.begin(stop_on_alarms=["x"])
    assert plan["warnings"] == []
    raise_alarm("x", "INSUFFICIENT_DATA")
    for _turn in range(2):
        assert watched.ask("next", plan=plan, stop_on_alarms=["x"])["hosts"] == ["a"]
    texts = [event["text"] for event in watched.journal(begun) if event["event"] == "decision"]
    assert [text[:58] for text in texts] == ["CloudWatch alarm x in us-east-1 is in INSUFFICIENT_DATA si"]
    assert watched.ask("planned", stop_on_alarms=["x"])["plan"]["warnings"] == texts


def _done(name: str) -> Result:
    return {"event": "outcome", "host": name, "outcome": "done", "message": ""}


def _write(begun: Result, *events: Result) -> None:
    with Path(begun["journal"]).open("a") as file:
        file.writelines(json.dumps({"at": 1, **event}) + "\n" for event in events)


def test_a_forecast_does_not_refuse_what_the_run_would_register_first(run: Run) -> None:
    group = {"name": "fleet", "region": "r", "vpc": "", "kind": "instance", "port": 8000, "balancers": ["b"]}
    members = [{"host": name, "group": "arn", "id": f"i-{name}", "port": 8000} for name in "abc"]
    healthy = {"group": "arn", "id": "i-a", "port": 8000, "state": "healthy", "reason": "", "description": ""}
    look = {"groups": {"arn": {"arn": "arn", **group}}, "memberships": members, "health": [healthy], "problems": []}
    for name in "abc":
        run.hosts[name]["rollout_facts"]["instances"] = [{"index": 0, "name": "vllm-0", "port": 8000}]
    (refusal,) = run.ask("planned", balancer={"look": look})["plan"]["refusals"]
    assert "Nothing else serves" in refusal
    forecast = run.ask("planned", balancer={"look": look}, check=True)["plan"]
    assert forecast["refusals"] == []
    assert any("Nothing else serves" in warning for warning in forecast["warnings"])
