"""Conversations as a closed network of queues, simulated: think, speak, be heard, be answered, listen.

A session is in real time: it speaks again when it has heard the answer and thought, so a slow system is asked less
often, and N sessions never have more than N turns under way. A turn is as in the host:

    end of speech -> silence -> transcript, beside the endpoint's wait -> first token -> first segment -> first audio

The language model's slot is held for the whole answer, a voice's slot for a segment; an answer's segments are spoken
in order. First tokens are hedged by the host's own policy (`rejoinder.core.resilience.hedging`), to another replica.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

import simpy

from loadtest.capacity.queueing import QueueReplica, QueueStage, QueueStation
from loadtest.capacity.service_times import ServiceTimes, fixed
from rejoinder.core.resilience.hedging import HedgePolicy
from rejoinder.core.settings.settings import HedgingSettings

Steps = Generator[simpy.Event, object, None]


@dataclass(frozen=True, slots=True)
class ReplyModel:
    """What a reply is made of. `segments`: (seconds after the first token when it is complete, seconds of audio).

    `generation_s`: from the first token to the last. `speed`: seconds of audio a voice makes in a second after its
    first chunk, of `chunk_s`.
    """

    segments: tuple[tuple[float, float], ...]
    generation_s: float
    speed: float = 10.0
    chunk_s: float = 0.2

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("an answer has at least one segment")

    @property
    def audio_s(self) -> float:
        return sum(audio_s for _, audio_s in self.segments)

    def rest_s(self, audio_s: float) -> float:
        """How long a voice holds its slot after the first chunk of so much audio."""
        chunks = max(0, -(-int(audio_s * 1e6) // int(self.chunk_s * 1e6)) - 1)
        return chunks * self.chunk_s / self.speed


@dataclass(frozen=True, slots=True)
class CallerModel:
    """Their behaviour. `speech`: from the decision to speak to the last sample of speech.

    `abandoned` requests to speech to text a turn are made at pauses inside the speech, and taken back after
    `abandoned_s`.
    """

    think: ServiceTimes
    speech: ServiceTimes
    abandoned: float = 0.0
    abandoned_s: float = 0.2


@dataclass(frozen=True, slots=True)
class TurnNetwork:
    """A deployment, its callers and its answers. `silence`: end of speech to soft end; `endpoint`: soft end to commit;
    `delivery`: first audio to the listener's ear.
    """

    stt: QueueStage
    llm: QueueStage
    tts: QueueStage
    callers: CallerModel
    answer: ReplyModel
    silence: ServiceTimes = field(default_factory=lambda: fixed(0))
    endpoint: ServiceTimes = field(default_factory=lambda: fixed(0))
    delivery: ServiceTimes = field(default_factory=lambda: fixed(0))
    hedging: HedgingSettings = field(default_factory=lambda: HedgingSettings(enabled=False))

    def with_stages(self, stages: Mapping[str, QueueStage]) -> TurnNetwork:
        """The same conversations on other stages, by name; those not named stay."""
        stt, llm, tts = (stages.get(name, getattr(self, name)) for name in ("stt", "llm", "tts"))
        return replace(self, stt=stt, llm=llm, tts=tts)


@dataclass(frozen=True, slots=True)
class SimulatedTurn:
    """Seconds of one simulated turn; the stages sum to `total_s`."""

    silence_s: float
    heard_s: float
    llm_s: float
    segment_s: float
    tts_s: float
    delivery_s: float

    @property
    def total_s(self) -> float:
        return self.silence_s + self.heard_s + self.llm_s + self.segment_s + self.tts_s + self.delivery_s


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """One simulated run after its warm-up. `busy`: share of slots in use; `waits_s`: every wait for a slot."""

    turns: tuple[SimulatedTurn, ...]
    for_s: float
    busy: dict[str, float]
    waits_s: dict[str, tuple[float, ...]]
    hedges: int

    @property
    def turns_per_s(self) -> float:
        return len(self.turns) / self.for_s


def simulate(
    network: TurnNetwork, sessions: int, for_s: float, seed: int = 1, *, warm_up_s: float = 30.0
) -> SimulatedRun:
    """`sessions` conversations over `for_s` simulated seconds after the warm-up; the same seed gives the same run."""
    if sessions < 1:
        raise ValueError(f"a run has at least one session, not {sessions}")
    run = _Run(network, seed)
    for _ in range(sessions):
        run.env.process(run.session(warm_up_s / 2))
    run.env.run(until=warm_up_s)
    run.measure()
    run.env.run(until=warm_up_s + for_s)
    stations = {"stt": run.stt, "llm": run.llm, "tts": run.tts}
    return SimulatedRun(
        turns=tuple(run.turns),
        for_s=for_s,
        busy={name: station.busy_s / for_s / station.stage.total_slots for name, station in stations.items()},
        waits_s={name: tuple(station.waits_s) for name, station in stations.items()},
        hedges=run.hedges,
    )


class _Run:
    def __init__(self, network: TurnNetwork, seed: int) -> None:
        self.env = simpy.Environment()
        self.network = network
        self.rng = random.Random(seed)
        self.stt, self.llm, self.tts = (
            QueueStation(self.env, stage, self.rng) for stage in (network.stt, network.llm, network.tts)
        )
        self.turns: list[SimulatedTurn] = []
        self.hedges = 0
        self._measuring = False
        self._policy = HedgePolicy(network.hedging)
        callers = network.callers
        self._think, self._speech = callers.think.drawer(self.rng), callers.speech.drawer(self.rng)
        self._silence, self._endpoint, self._delivery = (
            times.drawer(self.rng) for times in (network.silence, network.endpoint, network.delivery)
        )

    def measure(self) -> None:
        """The warm-up is over."""
        self._measuring = True
        for station in (self.stt, self.llm, self.tts):
            station.measured_since = self.env.now

    def session(self, ramp_s: float) -> Steps:
        """One conversation, for ever; it begins somewhere in the ramp."""
        yield self.env.timeout(self.rng.random() * ramp_s)
        while True:
            yield self.env.timeout(self._think(1))
            yield from self._speak()
            yield from self._turn()

    def _speak(self) -> Steps:
        speech_s = self._speech(1)
        callers = self.network.callers
        whole = int(callers.abandoned)
        count = whole + (self.rng.random() < callers.abandoned - whole)
        for _ in range(count):
            self.env.process(self._abandoned(self.rng.random() * speech_s, callers.abandoned_s))
        yield self.env.timeout(speech_s)

    def _abandoned(self, after_s: float, for_s: float) -> Steps:
        """A transcript that is asked for at a pause and taken back when the caller goes on."""
        yield self.env.timeout(after_s)
        replica = self.stt.choose()
        assert replica is not None
        request = self.env.process(_tolerant(self.stt, replica))
        yield request | self.env.timeout(for_s)
        if request.is_alive:
            request.interrupt()

    def _turn(self) -> Steps:
        env = self.env
        ended = env.now
        yield env.timeout(self._silence(1))
        soft_end = env.now
        replica = self.stt.choose()
        assert replica is not None
        yield env.process(self.stt.serve(replica)) & env.timeout(self._endpoint(1))
        heard = env.now
        yield from self._first_token()
        thought = env.now
        reply = _Reply(env)
        env.process(self._voice(reply, thought))
        yield reply.first_audio
        delivery_s = self._delivery(1)
        if self._measuring:
            segment_s, tts_s = reply.segment_at - thought, env.now - reply.segment_at
            self.turns.append(
                SimulatedTurn(
                    soft_end - ended,
                    heard_s=heard - soft_end,
                    llm_s=thought - heard,
                    segment_s=segment_s,
                    tts_s=tts_s,
                    delivery_s=delivery_s,
                )
            )
        yield reply.spoken
        yield env.timeout(max(0.0, reply.finish + delivery_s - env.now))

    def _first_token(self) -> Steps:
        """The race to the first token; the winner goes on generating by itself."""
        env, began = self.env, self.env.now
        self._policy.on_primary(began)
        primary = self.llm.choose()
        assert primary is not None
        attempts = [self._attempt(primary)]
        delay_s = self._policy.delay_s(began)
        if delay_s != float("inf"):
            yield attempts[0][1] | env.timeout(delay_s)
            if not attempts[0][1].triggered and self._policy.try_spend(env.now):
                other = self.llm.choose(avoid=primary)
                if other is not None:
                    attempts.append(self._attempt(other))
                    self.hedges += self._measuring
        sent_at = [began, env.now]
        yield env.any_of([begun for _, begun in attempts])
        won = next(index for index, (_, begun) in enumerate(attempts) if begun.triggered)
        self._policy.observe_ttft(env.now - sent_at[won], env.now)
        for index, (process, _) in enumerate(attempts):
            if index != won:
                self._policy.observe_ttft(env.now - sent_at[index], env.now)
                if process.is_alive:
                    process.interrupt()

    def _attempt(self, replica: QueueReplica) -> tuple[simpy.Process, simpy.Event]:
        begun = self.env.event()
        return self.env.process(_tolerant(self.llm, replica, begun, self.network.answer.generation_s)), begun

    def _voice(self, reply: _Reply, thought: float) -> Steps:
        """Speak the segments in order, each when it is complete and the one before it is synthesized."""
        env, answer = self.env, self.network.answer
        for ready_s, audio_s in answer.segments:
            yield env.timeout(max(0.0, thought + ready_s - env.now))
            if not reply.first_audio.triggered:
                reply.segment_at = env.now
            replica = self.tts.choose()
            assert replica is not None
            begun = env.event()
            synthesis = env.process(self.tts.serve(replica, begun, answer.rest_s(audio_s)))
            yield begun
            reply.audible(env.now, audio_s)
            yield synthesis
        reply.spoken.succeed()


class _Reply:
    """What the listener gets of one answer: `finish` is when all audio known so far will have been played."""

    def __init__(self, env: simpy.Environment) -> None:
        self.first_audio = env.event()
        self.spoken = env.event()
        self.segment_at = 0.0
        self.finish = 0.0

    def audible(self, now: float, audio_s: float) -> None:
        if not self.first_audio.triggered:
            self.first_audio.succeed()
        self.finish = max(self.finish, now) + audio_s


def _tolerant(
    station: QueueStation, replica: QueueReplica, begun: simpy.Event | None = None, rest_s: float = 0.0
) -> Steps:
    """A request that may be taken back."""
    try:
        yield from station.serve(replica, begun, rest_s)
    except simpy.Interrupt:
        return
