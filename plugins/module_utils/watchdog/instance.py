# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One instance under watch: look, judge, take it out of the edge, restart it, and bring it back through its gate."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import start_ticks, started_at
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import UnitState, unit_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.gate.conduct import again
from ansible_collections.inference.fleet.plugins.module_utils.instances.ready import health_status
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import agent, engine, gpu, processes
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.decision import (
    ACT,
    GATE,
    GIVE_UP,
    GPU,
    HOST,
    RESTART,
    RESTARTS,
    WAIT,
    Damping,
    decide,
    exempt,
)
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.evidence import Evidence
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import (
    GAVE_UP,
    HUNG,
    RESTARTED,
    HistoryFile,
    InstanceHistory,
)
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedHost, WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import (
    CORE,
    HANG,
    UNKNOWN,
    EngineLook,
    HangJudge,
    HangLimits,
    HangVerdict,
)
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.processes import EngineProcess

#: Seconds for the engine's main process to end after its core was killed, then for the whole unit.
_CORE_SECONDS = 10.0
_UNIT_SECONDS = 15.0
#: Seconds for which a unit's state counts while its main process runs. A hang takes longer to judge.
_UNIT_AGE = 10.0
_GATE_DIRECTORY = f"{STATE_DIRECTORY}/gate"
_KEY_PATH = "/etc/inference/engine_key.env"


@dataclasses.dataclass(frozen=True)
class WatchSettings:
    """How the watchdog works.

    Attributes:
        mode: decision.ACT or decision.OBSERVE.
        limits: of time.
        damping: how often an instance is restarted.
        key_path: the file with the engines' key.
        gate_directory: of the records of gates.
        announce: seconds for the edge to ask whether the instance is up, before it is killed. It asks every second.
    """

    mode: str = ACT
    limits: HangLimits = dataclasses.field(default_factory=HangLimits)
    damping: Damping = dataclasses.field(default_factory=Damping)
    key_path: str = _KEY_PATH
    gate_directory: str = _GATE_DIRECTORY
    announce: float = 3.0


class Actions:
    """What the watchdog does to a host. Tests replace it."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unit: UnitState | None = None
        self._main: EngineProcess | None = None
        self._asked_at = 0.0

    def unit(self, instance: WatchedInstance, fresh: bool = False) -> UnitState:
        """The state of its unit. systemctl costs more than all the rest of a look, so it is not asked in each."""
        is_old = self._clock() - self._asked_at >= _UNIT_AGE
        if fresh or is_old or self._unit is None or self._main is None or not self._main.runs:
            self._unit = unit_state(instance.unit)
            self._asked_at = self._clock()
            pid = self._unit.pid
            self._main = EngineProcess(pid, start_ticks(pid), "") if pid else None
        return self._unit

    def started(self, unit: UnitState) -> float:
        """Unix time of the start of a unit's main process; 0 where there is none."""
        return (started_at(unit.pid) if unit.pid else None) or 0.0

    def health(self, instance: WatchedInstance) -> int | None:
        return health_status(instance.port, instance.health_path)

    def gate(self, record: str) -> dict[str, t.Any] | None:
        return again(record)

    def gpu_problem(self) -> str:
        return gpu.gpu_problem()

    def processes(self, unit: UnitState) -> list[EngineProcess]:
        return processes.processes_of(unit.pid) if unit.pid else []

    def kill(
        self, instance: WatchedInstance, found: t.Sequence[EngineProcess], what: str, beat: t.Callable[[], None]
    ) -> list[EngineProcess]:
        """End an engine that hangs; systemd starts it again.

        Args:
            instance: the instance.
            found: the processes of its unit, the main one first.
            what: judge.CORE or judge.SERVER.
            beat: called while this waits.

        Returns:
            What still runs.
        """
        vitals = ENGINES[instance.engine].vitals
        cores = processes.cores(found, vitals.core) if vitals and vitals.core and what == CORE else []
        left = list(found)
        if cores:
            # Its clients get a proper error at once, where a killed server would only close their connections.
            processes.kill(cores)
            left = processes.wait_until_gone(found[:1], _CORE_SECONDS, beat)
        if left:
            processes.kill_unit(instance.unit)
        return processes.wait_until_gone(found, _UNIT_SECONDS, beat)


class Watch:
    """The watch over one instance. ``tick`` is called every few seconds.

    Args:
        instance: the instance.
        host: its host's files.
        history: what is remembered.
        settings: how to work.
        evidence: collects it.
        say: prints a line for people.
        beat: called while a step takes long.
        actions: on the host.
        clock: monotonic seconds.
        now: Unix time.
    """

    def __init__(
        self,
        instance: WatchedInstance,
        host: WatchedHost,
        history: HistoryFile,
        settings: WatchSettings,
        evidence: Evidence,
        say: t.Callable[[str], None],
        beat: t.Callable[[], None] = lambda: None,
        actions: Actions | None = None,
        clock: t.Callable[[], float] = time.monotonic,
        now: t.Callable[[], float] = time.time,
    ) -> None:
        self._instance = instance
        self._host = host
        self._history = history
        self._settings = settings
        self._evidence = evidence
        self._print = say
        self._beat = beat
        self._actions = actions or Actions()
        self._clock = clock
        self._now = now
        self._question = engine.TokenQuestion(instance, settings.key_path)
        self._judge: HangJudge | None = None
        self._invocation = ""
        self._said = ""
        # Whether the edge knows that the instance is out.
        self._announced = threading.Event()
        #: The last verdict's state.
        self.state = UNKNOWN

    @property
    def history(self) -> InstanceHistory:
        return self._history.of(self._instance.number)

    def answer(self) -> str:
        """For HAProxy's agent check."""
        phase = self.history.phase
        if not phase or self._settings.mode != ACT:
            return agent.UP
        self._announced.set()
        return agent.down(phase)

    def tick(self) -> None:
        """Look once, and do what follows from it.

        Raises:
            FleetError: a file or systemd could not be read; nothing was changed.
        """
        unit = self._actions.unit(self._instance)
        why = self._exemption(unit)
        if why:
            self._rest(why)
            return
        if unit.invocation != self._invocation and not self._has_started(unit):
            return
        if self.history.phase == RESTARTED:
            self._bring_back()
            return
        verdict = self._look()
        self.state = verdict.state
        if verdict.state == HANG:
            # A rollout may have begun to stop it a moment ago.
            unit = self._actions.unit(self._instance, fresh=True)
            why = self._exemption(unit)
            if why:
                self._rest(why)
            else:
                self._meet(verdict, unit)
        elif verdict.moved and self._is_hung():
            self._back("it makes progress again")

    def _exemption(self, unit: UnitState) -> str:
        drain = self._host.drained_by(self._instance)
        started = self._actions.started(unit)
        own = self.history.restarts[-1:]
        # A restart of the watchdog's own is no step of a rollout.
        is_own = bool(own) and self.history.phase == RESTARTED and started >= own[0]
        claim = "" if is_own else self._host.claimed_by(self._instance, started)
        state = "busy" if unit.has_job else unit.active
        return exempt(drain, claim, state)

    def _rest(self, why: str) -> None:
        """HangJudge nothing. A drain or a rollout decides from now on, and gates the instance itself."""
        self.state = UNKNOWN
        self._judge = None
        self._invocation = ""
        if self.history.phase and not why.startswith("its unit"):
            self._back(f"it is {why}, and that ends with a gate")

    def _has_started(self, unit: UnitState) -> bool:
        """Whether a new start serves; judged is only what has served."""
        self.state = UNKNOWN
        started = self._actions.started(unit)
        # What was killed may still be shown as running.
        is_old = self.history.phase == RESTARTED and started < max(self.history.restarts, default=0.0)
        if is_old or self._actions.health(self._instance) != 200:
            return False
        self._invocation = unit.invocation
        self._judge = HangJudge(self._settings.limits, self._clock())
        # Somebody else restarted it, or the watchdog itself ended after it did: the gate decides.
        waits_for_gate = self.history.phase == HUNG or (self.history.phase == GAVE_UP and self.history.kind != GPU)
        if waits_for_gate and started > self.history.since:
            self._keep(self.history.out(RESTARTED, "it was restarted", self._now()))
        return True

    def _look(self) -> HangVerdict:
        began = self._clock()
        reading = engine.read_counters(self._instance)
        # Out of the edge it has no work that would show whether it still hangs.
        if self._is_hung():
            self._question.ask()
        working = reading.running > 0 or self._is_hung()
        if not working and reading.progress is not None:
            try:
                working = engine.requests_at(self._instance, self._host.edge) > 0
            except FleetError as error:
                self._say(f"The edge does not say what is in flight: {error}")
        assert self._judge is not None
        look = EngineLook(
            self._clock(),
            began,
            reading.heard,
            reading.progress,
            working,
            reading.finished,
            self._question.waits,
            self._question.take_answer(),
        )
        verdict = self._judge.see(look)
        if verdict.ask and (working or self._asks_when_idle()):
            if working:
                self._say(f"{self._name} has work and has made no progress for {verdict.quiet:.0f} s: it is asked.")
            self._question.ask()
        return verdict

    def _meet(self, verdict: HangVerdict, unit: UnitState) -> None:
        """Deal with a hang; with each look again while it lasts."""
        what = "Its engine's core makes no progress" if verdict.what == CORE else "Its HTTP server does not answer"
        text = f"{self._name} hangs. {what} for {verdict.quiet:.0f} s"
        is_new = self.history.phase not in (HUNG, GAVE_UP)
        if self._settings.mode != ACT:
            if self._said != "hang":
                self._keep(self.history.hung())
                self._say_once("hang", f"{text}. watchdog_mode is {self._settings.mode}: it is left as it is.")
                self._collect(text, unit, verdict)
            return
        # Out of the edge before anything that takes time.
        if is_new:
            self._announced.clear()
            self._keep(self.history.hung().out(HUNG, what, self._now()))
            self._print(f"{text}. The edge sends it nothing more.")
        problem = self._actions.gpu_problem() if is_new else ""
        decision = decide(self.history.restarts, self._now(), problem, self._settings.damping)
        if is_new:
            self._collect(text, unit, verdict)
        if decision.action == RESTART and self.history.phase != GAVE_UP:
            self._restart(verdict, unit)
        elif decision.action == WAIT:
            self._say(f"{self._name} stays out of service: {decision.why}.")
        elif decision.action == GIVE_UP and self.history.phase != GAVE_UP:
            self._give_up(decision.why, decision.kind)

    def _restart(self, verdict: HangVerdict, unit: UnitState) -> None:
        found = self._actions.processes(unit)
        # Counted before: a watchdog that ends meanwhile must not restart it once more.
        self._keep(self.history.restarted(self._now(), self._settings.damping.window))
        self._announced.wait(self._settings.announce)
        left = self._actions.kill(self._instance, found, verdict.what, self._beat)
        if left:
            stuck = ", ".join(f"{process.pid} (state {process.state})" for process in left)
            self._give_up(f"its processes {stuck} do not end on SIGKILL: the kernel or the driver holds them", HOST)
            return
        self._keep(self.history.out(RESTARTED, self.history.reason, self._now()))
        self._judge = None
        self._invocation = ""
        self._print(f"{self._name} was killed; systemd starts it again.")

    def _bring_back(self) -> None:
        """Gate a restarted instance."""
        record = os.path.join(self._settings.gate_directory, f"{self._instance.engine}-{self._instance.number}.json")
        try:
            result = self._actions.gate(record)
        except FleetError as error:
            self._give_up(f"its gate cannot be conducted: {error}", GATE)
            return
        if result is None:
            # Deployed by a version that kept no questions: the next look at its progress is all there is.
            self._back("it serves again; its last gate left no questions to ask again")
        elif result["passed"]:
            self._back(f"it has passed its gate, {self._now() - self.history.since:.0f} s after it was taken out")
        else:
            self._give_up(f"it did not pass its gate after the restart. {result['message']}", GATE)

    def _is_hung(self) -> bool:
        """Whether it is out only because it hung, so that progress brings it back."""
        return self.history.phase == HUNG or (self.history.phase == GAVE_UP and self.history.kind == RESTARTS)

    def _back(self, why: str) -> None:
        self._keep(self.history.back())
        self._said = ""
        self._print(f"{self._name} is back in service: {why}.")

    def _give_up(self, why: str, kind: str) -> None:
        self._keep(self.history.out(GAVE_UP, why, self._now(), kind))
        self._print(
            f"{self._name} is given up and stays out of service: {why}. Look at it; rolling_restart.yml for this host, "
            "or drain.yml and undrain.yml, put it back."
        )

    def _collect(self, text: str, unit: UnitState, verdict: HangVerdict) -> None:
        self._beat()
        try:
            found = self._actions.processes(unit)
            path = self._evidence.collect(self._instance, text, found, self._now() - verdict.quiet)
        except (FleetError, OSError) as error:
            self._print(f"No evidence of {self._name}'s hang could be kept: {error}")
            return
        self._print(f"What {self._name} was doing is in {path}.")

    def _asks_when_idle(self) -> bool:
        vitals = ENGINES[self._instance.engine].vitals
        return vitals is not None and vitals.asks_when_idle

    def _keep(self, history: InstanceHistory) -> None:
        self._history.keep(self._instance.number, history)

    @property
    def _name(self) -> str:
        return f"{self._instance.server} ({self._instance.unit})"

    def _say_once(self, subject: str, text: str) -> None:
        self._said = subject
        self._print(text)

    def _say(self, text: str) -> None:
        """Print a line that the last one did not say already, whatever its figures."""
        subject = "".join(letter for letter in text if not letter.isdigit())
        if subject != self._said:
            self._say_once(subject, text)
