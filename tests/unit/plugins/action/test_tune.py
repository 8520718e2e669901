"""The controller's side of a search: what is refused, how it goes on, what it keeps, and what it writes."""

from __future__ import annotations

import json
import time
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action import tune
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import find_settings
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes

from tests.unit.plugins.plugin_utils.tune.searches import repeats

Result = dict[str, t.Any]

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
SERVED = {
    "engine": "vllm",
    "version": "0.32.0",
    "model": MODEL,
    "revision": "main",
    "release": "vllm-0",
    "tokenizer": "/m",
    "served_name": "qwen",
    "context": 32768,
}
INSTANCE: Result = {"name": "vllm-0", "index": 0, "engine": "vllm", "serves": True, "span": {}, "gpus": [0]}
KEPT: Result = {"release": "vllm-0", "good": "vllm-0", "problem": "", "trial": ""}
GOOD = {"for": "interactive", "max_itl": "0.05", "minutes": 60, "repeats": 3, "lossy": False, "keep": False}
NAME = "measured-l40s-interactive"


def speed(changes: Changes) -> dict[str, float] | str:
    """Fastest with 64 requests and steps of 4096 tokens; 8192 would be faster and answers wrong."""
    tokens, requests = changes.get("max_num_batched_tokens"), changes.get("max_num_seqs")
    if tokens == 8192:
        return "the answer is London"
    first = (
        0.4 * {None: 1.0, 1024: 2.0, 4096: 0.7, 16384: 0.9}[tokens] * {None: 1.0, 128: 0.8, 64: 0.5}.get(requests, 2.0)
    )
    return {"first_token_p95": first, "between_tokens_p95": 0.02, "tokens_per_second": 900.0}


class Search:
    """The tasks around the action, without a host."""

    def __init__(self, place: Path, instances: t.Sequence[Result] = (INSTANCE,), **settings: t.Any) -> None:
        self.place = place
        self.settings: Result = {**GOOD, **settings}
        self.instances = list(instances)
        self.host: Result = {
            "tune_kept": {"instances": [KEPT]},
            "engine_trials_staged": [{"release": "vllm-0"}],
            "benchmark_planned": {"run": "20261130T101500Z"},
            "benchmark_checked": {"instances": {"vllm-0": SERVED}},
            "rollout_status": {"rollout": {"seconds": {"vllm-0": 50}}},
            "engine_change": {"outcome": "done"},
        }
        self.trials: list[Result] = []
        self.plan: Result = {}

    def ask(self, state: str, *, check: bool = False, **arguments: t.Any) -> Result:
        args = {"state": state, "records": str(self.place / "records"), **arguments}
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.tune")
        action = tune.ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        variables = {"hostvars": {"gpu-1": self.host}, "ansible_play_hosts_all": ["gpu-1"]}
        return t.cast(Result, action.run(task_vars={**variables, "ansible_play_hosts": ["gpu-1"]}))

    @property
    def profiles(self) -> str:
        return str(self.place / "profiles")

    def check(self, **more: t.Any) -> Result:
        given = {"profiles": self.profiles, "settings": self.settings, "instances": self.instances}
        return self.ask("checked", **{**given, "gpu": "L40S", "hardware": "L40S", **more})

    def decide(self, checked: Result | None = None, effective: t.Collection[str] = ()) -> Result:
        checked = checked or self.check()
        probes = checked["probes"]
        self.host["engine_described"] = [
            {name: value for name, value in one.items() if not effective or name in effective} for one in probes
        ]
        self.plan = self.ask("planned", profiles=self.profiles, settings=self.settings, checked=checked)
        return self.plan

    def run(self, speed: t.Callable[[Changes], dict[str, float] | str] = speed) -> list[Changes]:
        """Search to the end; the settings that were tried."""
        began = time.time()
        for _turn in range(self.plan["turns"]):
            wanted = self.ask("next", plan=self.plan, trials=self.trials, began=began)
            if wanted["finished"]:
                break
            found = speed(wanted["changes"])
            release = f"vllm-{wanted['number']}"
            tried = {"release": release, "measuring": time.time(), "done": True}
            results = [] if isinstance(found, str) else [repeats(found, 0.01, seed=wanted["number"])]
            if isinstance(found, str):
                tried = {"release": release, "step": "gate", "problem": found}
            seen = self.ask(
                "tried", plan=self.plan, trials=self.trials, began=began, next=wanted, tried=tried, results=results
            )
            self.trials = seen["trials"]
        else:
            raise AssertionError("the turns do not suffice")
        return [trial["changes"] for trial in self.trials]

    def end(self, **more: t.Any) -> Result:
        return self.ask("recorded", plan=self.plan, trials=self.trials, **more)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_a_search_finds_the_best_and_writes_its_profile(search: Search, tmp_path: Path) -> None:
    search.decide()
    tried = search.run()
    assert tried[0] == {}
    found = search.ask("found", plan=search.plan, trials=search.trials)
    assert found["keeps"] == "vllm-0"
    winner = search.trials[found["winner"]]
    assert winner["changes"] == {"max_num_batched_tokens": 4096, "max_num_seqs": 64}
    recorded = search.end()
    assert not recorded.get("failed")
    assert recorded["problem"] == ""
    text = "\n".join(recorded["lines"])
    assert "the answer is London" in text
    assert "Won: vllm_max_num_batched_tokens 4096, vllm_max_num_seqs 64: first token p95, ms 4" in text
    assert "better, 32 at once." in text
    assert f"Written: {tmp_path}/profiles/{NAME}.yml. To use it: engine_profile: {NAME}" in text
    rows = {row["settings"]: row for row in recorded["rows"]}
    assert rows["as it is"]["verdict"] == "baseline"
    assert rows["vllm_max_num_batched_tokens 8192"]["verdict"] == "failed the gate: the answer is London"
    assert rows["vllm_max_num_batched_tokens 4096, vllm_max_num_seqs 64"]["verdict"].endswith("better (won)")
    use = ProfileUse(search.profiles, "L40S", MODEL, "0.32.0")
    selected = find_settings(NAME, "vllm", "L40S", use).values
    assert (selected["max_num_batched_tokens"], selected["max_num_seqs"]) == (4096, 64)
    profile = (tmp_path / "profiles" / f"{NAME}.yml").read_text()
    assert "Run 20261130T101500Z on gpu-1: first token p95, ms" in profile
    record = json.loads(Path(recorded["record"]).read_text())
    assert Path(recorded["record"]).parent == tmp_path / "records" / "tuning" / "gpu-1"
    assert record["winner"] == found["winner"]
    assert [one["changes"] for one in record["trials"]] == tried


def test_the_search_may_begin_from_a_measured_profile(search: Search) -> None:
    search.decide()
    search.run()
    search.end()
    again = Search(search.place, minutes=60)
    checked = again.check(profile=NAME)
    assert checked["base"] == "balanced"
    assert checked["baseline"]["max_num_seqs"] == 64
    again.decide(checked)
    again.run(lambda one: {"first_token_p95": 0.1 if one.get("max_num_batched_tokens") == 8192 else 0.4, **BETWEEN})
    assert again.end()["profile"]
    use = ProfileUse(search.profiles, "L40S", MODEL, "0.32.0")
    selected = find_settings(NAME, "vllm", "L40S", use).values
    # What the profile before had stays.
    assert (selected["max_num_batched_tokens"], selected["max_num_seqs"]) == (8192, 64)


BETWEEN = {"between_tokens_p95": 0.02}


def test_where_nothing_is_better_nothing_is_written(search: Search, tmp_path: Path) -> None:
    search.decide()
    search.run(lambda one: {"first_token_p95": 0.4, **BETWEEN})
    recorded = search.end()
    assert recorded["profile"] == ""
    assert "Nothing won: of what was tried, nothing has the least first token p95 by more than" in recorded["lines"][-2]
    assert not (tmp_path / "profiles").exists()
    assert json.loads(Path(recorded["record"]).read_text())["winner"] is None


def test_where_nothing_keeps_the_limits_nothing_wins(search: Search) -> None:
    search.decide()
    search.run(lambda _one: {"first_token_p95": 0.4, "between_tokens_p95": 0.09})
    said = search.end()["lines"][-2]
    assert said == (
        "Nothing won: no settings keep the limits; as it is, between tokens p95 0.0905 s, above tune_max_itl 0.05."
    )


def test_the_winner_stays_only_where_it_is_asked_for_and_passes(tmp_path: Path) -> None:
    keeping = Search(tmp_path, keep=True)
    keeping.decide()
    keeping.run()
    found = keeping.ask("found", plan=keeping.plan, trials=keeping.trials)
    assert found["keeps"] == f"vllm-{found['winner']}"
    lines = "\n".join(keeping.end()["lines"])
    assert "gpu-1 keeps it until the next site.yml" in lines
    keeping.host["engine_change"] = {"outcome": "rolled_back"}
    fell = Search(tmp_path / "other", keep=True)
    fell.host["engine_change"] = {"outcome": "rolled_back"}
    fell.decide()
    fell.run()
    recorded = fell.end()
    assert recorded["profile"] == ""
    assert "did not pass when it was to stay, so nothing won" in "\n".join(recorded["lines"])


def test_the_budget_ends_a_search_with_time_for_the_way_back(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    search.settings["minutes"] = 10
    search.decide()
    clock = [1000.0]
    monkeypatch.setattr(tune.time, "time", lambda: clock[0])
    began = clock[0]
    for number in range(20):
        wanted = search.ask("next", plan=search.plan, trials=search.trials, began=began)
        if wanted["finished"]:
            break
        assert wanted["start_timeout"] <= began + 600 - clock[0]
        at, measuring = clock[0], clock[0] + (40 if number else 0)
        clock[0] = measuring + 80
        search.trials = search.ask(
            "tried",
            plan=search.plan,
            trials=search.trials,
            began=at,
            next=wanted,
            tried={"release": "r", "measuring": measuring, "done": True},
            results=[repeats({"first_token_p95": 0.4, **BETWEEN}, seed=number)],
        )["trials"]
    # The baseline, and trials of 120 s, of which the last one begins at 440 s.
    assert len(search.trials) == 5
    assert clock[0] - began + 40 <= 600
    assert "after 9.3 of 10 minutes another trial of about 120 s would not fit, with 40 s" in wanted["said"]


def test_without_figures_of_the_baseline_the_search_ends(search: Search) -> None:
    search.decide()
    assert search.run(lambda _one: "the engine ended") == [{}]
    recorded = search.end()
    assert recorded["problem"] == "The search on gpu-1 broke off: the baseline has no figures (the engine ended)"
    assert recorded["profile"] == ""
    assert search.ask("found", plan=search.plan, trials=search.trials)["keeps"] == "vllm-0"


def test_a_search_that_never_began_leaves_nothing(search: Search, tmp_path: Path) -> None:
    search.decide()
    recorded = search.end(broken="the host is gone")
    assert recorded["problem"] == "Nothing was measured. the host is gone"
    assert recorded["rows"] == recorded["lines"] == []
    assert not (tmp_path / "records" / "tuning").exists()


def test_a_forecast_writes_nothing(search: Search, tmp_path: Path) -> None:
    search.decide()
    search.run()
    recorded = search.end(check=True)
    assert (recorded["record"], recorded["profile"]) == ("", "")
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"for": "speed"}, "tune_for is 'speed'. Valid are interactive, throughput, balanced, long_context."),
        ({"for": ""}, "tune_for is ''. Valid are"),
        ({"max_itl": 0}, "tune_max_itl is 0; between tokens p95 has a limit in seconds above 0"),
        ({"max_ttft": "-1"}, "tune_max_ttft is '-1'"),
        ({"minutes": 0}, "tune_minutes is 0; it must be a number of minutes above 0."),
        ({"minutes": "long"}, "tune_minutes is 'long'"),
        ({"repeats": 1}, "tune_repeats is 1; it must be a whole number from 2."),
        ({"at": -1}, "tune_at is -1"),
        ({"keep_records": 0}, "tune_keep_records is 0"),
        ({"instance": "vllm-3"}, "tune_instance is 'vllm-3'. Valid on gpu-1 are vllm-0."),
        ({"profile": "mine"}, "tune_profile is 'mine'; the name of a measured profile begins with measured-"),
    ],
)
def test_bad_settings_are_refused_before_any_host_is_asked(tmp_path: Path, settings: Result, said: str) -> None:
    refused = Search(tmp_path, **settings).check()
    assert refused["failed"]
    assert said in refused["msg"]


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    refused = Search(tmp_path, minutes=-1, max_itl=0, repeats=0).check()
    assert all(
        name in refused["msg"] for name in ("tune_repeats", "tune_minutes", "tune_max_itl", "Nothing was touched.")
    )


def test_instances_that_cannot_try_settings_are_refused(tmp_path: Path) -> None:
    spanning = {**INSTANCE, "span": {"nodes": ["gpu-1", "gpu-2"]}}
    assert "vllm-0 of gpu-1 spans gpu-1, gpu-2" in Search(tmp_path, [spanning]).check()["msg"]
    assert "has no instance that requests come to" in Search(tmp_path, [{**INSTANCE, "serves": False}]).check()["msg"]
    two = [INSTANCE, {**INSTANCE, "name": "vllm-1", "index": 1}]
    assert (
        "tune_keep would leave gpu-1 with one instance that differs" in Search(tmp_path, two, keep=True).check()["msg"]
    )
    assert Search(tmp_path, two, instance="vllm-1").check()["instance"]["index"] == 1


def test_places_that_cannot_be_written_are_refused(search: Search) -> None:
    assert "the profile cannot be written to /proc/none" in search.check(profiles="/proc/none")["msg"]
    assert "the results cannot be written to /proc/none" in search.check(records="/proc/none")["msg"]


def test_a_budget_that_holds_no_trial_is_refused(search: Search) -> None:
    search.settings["minutes"] = 4
    refused = search.decide()
    assert refused["msg"] == (
        "Nothing was touched. tune_minutes is 4, and the baseline, one trial and the way back need about 5 minutes: "
        "two starts of 50 s, as its last change took, and two measurements of 90 s (3 repeats)."
    )
    search.host["rollout_status"] = {"rollout": None}
    search.settings["minutes"] = 6
    assert "two starts of 120 s, as assumed, since its last change is not known" in search.decide()["msg"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"engine_trials_staged": [{"release": "vllm-9"}]}, "vllm-0 has vllm-0, and the variables of gpu-1 say vllm-9"),
        ({"tune_kept": {"instances": [{**KEPT, "good": "vllm-8"}]}}, "vllm-0 of vllm-0 has not passed the gate"),
        ({"tune_kept": {"instances": [{**KEPT, "problem": "instance 0 has no release"}]}}, "instance 0 has no release"),
    ],
)
def test_an_instance_that_is_not_as_its_variables_say_is_refused(search: Search, facts: Result, said: str) -> None:
    search.host.update(facts)
    refused = search.decide()
    assert refused["failed"]
    assert said in refused["msg"]


def test_settings_whose_variable_is_set_are_left_out_and_named(search: Search) -> None:
    plan = search.decide(effective=["max_num_seqs"])
    assert plan["without"] == ["max_num_batched_tokens", "gpu_memory_utilization"]
    assert plan["lines"][-1] == (
        "Not varied, because the variable is set for gpu-1 and precedes every profile: vllm_max_num_batched_tokens, "
        "vllm_gpu_memory_utilization."
    )
    assert plan["lines"][0] == (
        "Searches on vllm-0 for the least first token p95, 32 at once, with between tokens p95 at most 0.05 s, in 60 "
        "minutes."
    )
    tried = search.run()
    assert all(set(one) <= {"max_num_seqs"} for one in tried)
    nothing = Search(search.place).decide(effective=["another"])
    assert "There is nothing to vary on vllm-0. Not varied, because the variable is set for gpu-1" in nothing["msg"]
