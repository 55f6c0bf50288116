"""Simulation of conversations as a closed network of queues: think, speak, get an answer, listen.

The caller of a session speaks again only after listening to the answer and thinking. A slow system therefore gets
fewer requests, and N sessions never have more than N turns in progress. A turn follows the host's steps:

    end of speech -> silence -> transcript and endpointing in parallel -> first token -> first segment -> first audio

An answer holds a slot of the language model until its last token. Its segments are synthesized in order, and each
holds a slot of the voice. Late first tokens are hedged to another replica by the host's own policy
(`rejoinder.core.resilience.hedging`).
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
    """Model of one reply.

    Attributes:
        segments: (seconds from the first token until the text is complete, seconds of audio) of each segment.
        generation_s: Time from the first token to the last, in seconds.
        speed: Seconds of audio that the voice synthesizes per second after its first chunk.
        chunk_s: Seconds of audio in one chunk of the voice.
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
        """Seconds of audio in the whole reply."""
        return sum(audio_s for _, audio_s in self.segments)

    def rest_s(self, audio_s: float) -> float:
        """Return the seconds for which a segment occupies a slot of the voice after its first chunk.

        `audio_s` is the length of the audio of the segment in seconds.
        """
        chunks = max(0, -(-int(audio_s * 1e6) // int(self.chunk_s * 1e6)) - 1)
        return chunks * self.chunk_s / self.speed


@dataclass(frozen=True, slots=True)
class CallerModel:
    """Behaviour of the callers. Distributions are in seconds.

    Attributes:
        think: Time from the end of an answer to the next turn.
        speech: Length of the caller's speech in a turn.
        abandoned: Mean number of transcripts per turn that start at pauses inside the speech and are cancelled.
        abandoned_s: Time from the start of such a transcript until it is cancelled, in seconds.
    """

    think: ServiceTimes
    speech: ServiceTimes
    abandoned: float = 0.0
    abandoned_s: float = 0.2


@dataclass(frozen=True, slots=True)
class TurnNetwork:
    """A deployment, its callers and its answers. Distributions are in seconds.

    Attributes:
        stt: Queueing model of speech to text.
        llm: Queueing model of the language model.
        tts: Queueing model of the voice.
        callers: The callers' behaviour.
        answer: The reply that every turn gets.
        silence: Time from the end of speech to the tentative end of speech.
        endpoint: Time from the tentative end of speech to the end of turn.
        delivery: Time from the first audio at the host to the caller's playout.
        hedging: Settings for hedging first tokens.
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
        """Return the network with the stages in `stages` replaced, by name. The other stages stay the same."""
        stt, llm, tts = (stages.get(name, getattr(self, name)) for name in ("stt", "llm", "tts"))
        return replace(self, stt=stt, llm=llm, tts=tts)


@dataclass(frozen=True, slots=True)
class SimulatedTurn:
    """Durations in one simulated turn, in seconds. They sum to `total_s`, the voice-to-voice latency.

    Attributes:
        silence_s: End of speech to the tentative end of speech.
        transcript_s: Tentative end of speech until the transcript is available and the turn has ended.
        llm_s: End of turn until the first token.
        segment_s: First token until the first segment is complete.
        tts_s: First segment complete until its first audio.
        delivery_s: First audio until the caller's playout.
    """

    silence_s: float
    transcript_s: float
    llm_s: float
    segment_s: float
    tts_s: float
    delivery_s: float

    @property
    def total_s(self) -> float:
        """Voice-to-voice latency in seconds."""
        return self.silence_s + self.transcript_s + self.llm_s + self.segment_s + self.tts_s + self.delivery_s


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """Result of one simulated run, without its warm-up.

    Attributes:
        turns: Every turn whose first audio was synthesized.
        for_s: Length of the simulated time in seconds.
        busy: Mean share of slots in use, 0 to 1, by stage.
        waits_s: Every wait for a slot in seconds, by stage.
        hedges: Number of hedges (second LLM requests).
    """

    turns: tuple[SimulatedTurn, ...]
    for_s: float
    busy: dict[str, float]
    waits_s: dict[str, tuple[float, ...]]
    hedges: int

    @property
    def turns_per_s(self) -> float:
        """Throughput in turns per second."""
        return len(self.turns) / self.for_s


def simulate(
    network: TurnNetwork, sessions: int, for_s: float, seed: int = 1, *, warm_up_s: float = 30.0
) -> SimulatedRun:
    """Simulate conversations and return the result. The same seed gives the same result.

    Args:
        network: Deployment, callers and answers.
        sessions: Number of conversations, at least 1.
        for_s: Simulated seconds after the warm-up.
        seed: Seed of all random draws.
        warm_up_s: Simulated seconds before the measurement. Sessions start in the first half of the warm-up.

    Raises:
        ValueError: `sessions` is less than 1.
    """
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
    """One simulated run: its stages, its conversations as simulated processes, and its measurements."""

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
        """End the warm-up and start the measurement."""
        self._measuring = True
        for station in (self.stt, self.llm, self.tts):
            station.measured_since = self.env.now

    def session(self, ramp_s: float) -> Steps:
        """Simulate one endless conversation that begins at a random time in the first `ramp_s` seconds."""
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
        """Simulate a transcript that starts at a pause in the speech and is cancelled when the caller continues.

        It starts after `after_s` seconds and is cancelled `for_s` seconds later, if it has not ended before.
        """
        yield self.env.timeout(after_s)
        replica = self.stt.choose()
        assert replica is not None
        request = self.env.process(_cancellable(self.stt, replica))
        yield request | self.env.timeout(for_s)
        if request.is_alive:
            request.interrupt()

    def _turn(self) -> Steps:
        env = self.env
        ended = env.now
        yield env.timeout(self._silence(1))
        speech_end = env.now
        replica = self.stt.choose()
        assert replica is not None
        yield env.process(self.stt.serve(replica)) & env.timeout(self._endpoint(1))
        turn_end = env.now
        yield from self._first_token()
        first_token = env.now
        reply = _Reply(env)
        env.process(self._voice(reply, first_token))
        yield reply.first_audio
        delivery_s = self._delivery(1)
        if self._measuring:
            segment_s, tts_s = reply.segment_at - first_token, env.now - reply.segment_at
            self.turns.append(
                SimulatedTurn(
                    speech_end - ended,
                    transcript_s=turn_end - speech_end,
                    llm_s=first_token - turn_end,
                    segment_s=segment_s,
                    tts_s=tts_s,
                    delivery_s=delivery_s,
                )
            )
        yield reply.synthesized
        yield env.timeout(max(0.0, reply.playout_end + delivery_s - env.now))

    def _first_token(self) -> Steps:
        """Wait for the first token, from the primary request or its hedge.

        The request with the first token continues to generate, and the other one is cancelled.
        """
        env, began = self.env, self.env.now
        self._policy.on_primary(began)
        primary = self.llm.choose()
        assert primary is not None
        attempts = [self._attempt(primary)]
        delay_s = self._policy.delay_s(began)
        if delay_s != float("inf"):
            yield attempts[0][1] | env.timeout(delay_s)
            if not attempts[0][1].triggered and self._policy.spend():
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
        return self.env.process(_cancellable(self.llm, replica, begun, self.network.answer.generation_s)), begun

    def _voice(self, reply: _Reply, first_token: float) -> Steps:
        """Synthesize the segments of a reply in order. `first_token` is the simulated time of its first token.

        A segment starts when its text is complete and the previous segment is synthesized.
        """
        env, answer = self.env, self.network.answer
        for ready_s, audio_s in answer.segments:
            yield env.timeout(max(0.0, first_token + ready_s - env.now))
            if not reply.first_audio.triggered:
                reply.segment_at = env.now
            replica = self.tts.choose()
            assert replica is not None
            begun = env.event()
            synthesis = env.process(self.tts.serve(replica, begun, answer.rest_s(audio_s)))
            yield begun
            reply.add_audio(env.now, audio_s)
            yield synthesis
        reply.synthesized.succeed()


class _Reply:
    """Progress of one simulated answer. Times are in seconds of the simulation.

    It has the events of the first audio and of the end of synthesis, the time of the first complete segment, and the
    time at which playout of the audio so far ends.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.first_audio = env.event()
        self.synthesized = env.event()
        self.segment_at = 0.0
        self.playout_end = 0.0

    def add_audio(self, now: float, audio_s: float) -> None:
        """Add a segment of `audio_s` seconds to the playout. The first segment triggers `first_audio`."""
        if not self.first_audio.triggered:
            self.first_audio.succeed()
        self.playout_end = max(self.playout_end, now) + audio_s


def _cancellable(
    station: QueueStation, replica: QueueReplica, begun: simpy.Event | None = None, rest_s: float = 0.0
) -> Steps:
    """Run `station.serve` for one request, and end normally if the request is cancelled.

    `simpy.Interrupt` cancels the request. Without this wrapper, it would also fail the simulated process.
    """
    try:
        yield from station.serve(replica, begun, rest_s)
    except simpy.Interrupt:
        return
