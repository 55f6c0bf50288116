"""Study of querying the turn model less often: `python -m benchmarks.studies.turn_study`.

The study runs the real models once over clips of human speech. At each tentative end of speech (silence of
`soft_end_ms`) it transcribes the audio, queries the turn model, and times both. It then simulates three policies on
these silences:

    always     Query the turn model at every tentative end, and wait for its verdict.
    sparing    The product's policy. Query when the transcript is available and does not look complete, or after
               `ask_after_ms` of silence. A transcript that looks complete decides if it comes before the verdict.
    silent     The turn model never responds. A transcript that looks complete decides. Otherwise wait for the fallback
               silence.

A pause that is longer than a policy waits is a false cut-off: the policy ends the turn although the caller continues.
Latency is the silence before the turn ends. `ready` is the silence until the turn has ended and the transcript is
available, because a reply needs both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from deployments.engines.speech_in.smart_turn import SmartTurn
from deployments.engines.stt.cascade import SttCascade
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from deployments.vad import load_silero
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW, Samples, pcm16_to_float
from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.settings import Settings, SpeechSettings
from rejoinder.core.turns.end_of_turn import end_of_turn_probability
from rejoinder.core.turns.endpointing import TurnDetection, endpoint_silence_s
from rejoinder.core.turns.speech_detector import (
    RESUME_WINDOWS,
    SoftEnd,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechState,
    step,
)
from rejoinder.core.turns.transcript_ending import TranscriptEnding, classify_ending
from rejoinder.store import open_store
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips, missing_packages

POLICIES = ("always", "sparing", "silent")
ROOM_S = 1.5
ROOM_LEVEL = 8


@dataclass(frozen=True, slots=True)
class Silence:
    """One tentative end of speech. Times are in milliseconds after the end of the last speech.

    Attributes:
        clip: Name of the clip.
        soft_ms: When the tentative end was detected.
        resumed_ms: When speech was detected again; None if the utterance had ended.
        probability: The turn model's probability at the tentative end.
        later: The turn model's probability after `ask_after_ms` of silence, or at the tentative end if that is later.
        judged_ms: Duration of the turn model's inference in milliseconds.
        text: Transcript up to the tentative end.
        transcribed_ms: Duration of the transcription in milliseconds.
        sentence_over: True if a sentence of the clip's true text ends here.
    """

    clip: str
    soft_ms: float
    resumed_ms: float | None
    probability: float
    later: float
    judged_ms: float
    text: str
    transcribed_ms: float
    sentence_over: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's decision in one silence: when it ends the turn, and whether it queries the turn model.

    Attributes:
        taken_ms: Milliseconds of silence after which the policy ends the turn, unless speech resumes before.
        asked: True if the policy queries the turn model.
    """

    taken_ms: float
    asked: bool


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """Results of one policy. Times are milliseconds of silence.

    Attributes:
        policy: Name of the policy.
        silences: Number of tentative ends of speech.
        pauses: Number of tentative ends after which speech resumed.
        asked: Number of queries to the turn model.
        cut: Number of pauses in which the policy ended the turn.
        latency_p50_ms: Median silence before the turn ended.
        latency_p90_ms: 90th percentile of the silence before the turn ended.
        ready_p50_ms: Median silence until the turn had ended and the transcript was available.
        ready_p90_ms: 90th percentile of the silence until the turn had ended and the transcript was available.
    """

    policy: str
    silences: int
    pauses: int
    asked: int
    cut: int
    latency_p50_ms: float
    latency_p90_ms: float
    ready_p50_ms: float
    ready_p90_ms: float


def decide(silence: Silence, policy: str, settings: Settings) -> Decision:
    """Return when `policy`, one of POLICIES, ends the turn in one silence, and whether it queries the turn model."""
    rules = settings.endpointing
    transcript_ms = silence.soft_ms + silence.transcribed_ms
    words = classify_ending(silence.text, settings.stt.language)
    finished = words is TranscriptEnding.FINISHED
    if policy == "always":
        verdict_ms = silence.soft_ms + silence.judged_ms
        fused = end_of_turn_probability(silence.probability, words if transcript_ms <= verdict_ms else None)
        return Decision(_taken_ms(settings, fused, verdict_ms), asked=True)
    query_ms = max(silence.soft_ms, min(rules.ask_after_ms, transcript_ms))
    lasts = silence.resumed_ms is None or silence.resumed_ms > query_ms
    asked = lasts and not (finished and transcript_ms <= query_ms)
    if finished and (policy == "silent" or transcript_ms <= query_ms + silence.judged_ms):
        return Decision(_taken_ms(settings, rules.finished_probability, transcript_ms), asked)
    if policy == "silent":
        return Decision(_taken_ms(settings, None, silence.soft_ms + rules.verdict_timeout_ms), asked)
    verdict_ms = query_ms + silence.judged_ms
    return Decision(
        _taken_ms(
            settings, end_of_turn_probability(silence.later, words if transcript_ms <= verdict_ms else None), verdict_ms
        ),
        asked,
    )


def _taken_ms(settings: Settings, probability: float | None, decided_ms: float) -> float:
    """Return the silence in ms after which the turn ends.

    `probability` is the probability that the turn is complete, None if unknown. The decision comes after `decided_ms`
    of silence.
    """
    return max(decided_ms, endpoint_silence_s(TurnDetection(), settings.endpointing, probability) * 1000)


def outcome(policy: str, silences: Sequence[Silence], settings: Settings) -> PolicyOutcome:
    """Return the counts and the latencies of one policy over all silences."""
    pairs = [(silence, decide(silence, policy, settings)) for silence in silences]
    ends = [pair for pair in pairs if pair[0].resumed_ms is None]
    taken = [decision.taken_ms for _, decision in ends]
    ready = [max(decision.taken_ms, silence.soft_ms + silence.transcribed_ms) for silence, decision in ends]
    cut = sum(1 for silence, d in pairs if silence.resumed_ms is not None and silence.resumed_ms > d.taken_ms)
    (p50, p90), (ready50, ready90) = np.percentile(taken, (50, 90)), np.percentile(ready, (50, 90))
    asked = sum(decision.asked for _, decision in pairs)
    return PolicyOutcome(
        policy,
        silences=len(pairs),
        pauses=len(pairs) - len(ends),
        asked=asked,
        cut=cut,
        latency_p50_ms=float(p50),
        latency_p90_ms=float(p90),
        ready_p50_ms=float(ready50),
        ready_p90_ms=float(ready90),
    )


def edges(vad: Silero, settings: SpeechSettings, pcm: npt.NDArray[np.int16]) -> Iterator[SpeechEvent]:
    """Yield the events that voice activity detection finds in 16 kHz audio, such as the start of speech, in order."""
    state: Samples = np.zeros((1, STATE_SIZE), np.float32)
    speech = SpeechState()
    for end in range(VAD_WINDOW, pcm.size + 1, VAD_WINDOW):
        window = pcm16_to_float(pcm[end - VAD_WINDOW : end].tobytes())[np.newaxis]
        probabilities, state = vad.step(window, state)
        power = float(np.square(window).mean())
        speech, events = step(
            speech, settings=settings, probability=float(probabilities[0]), window_end=end, power=power
        )
        yield from events


class StudyListener:
    """The real models of the study: voice activity, turn detection and speech-to-text."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Load the models that `settings` name, each with `threads` threads."""
        store = open_store(settings.models)
        self._settings = settings
        self._vad: Silero = load_silero(settings)
        self._turn = SmartTurn(store.path(settings.turn_detector.model) / "smart-turn-v3.2-cpu.onnx", threads)
        main_recognizer = Whisper(store.path(settings.stt.model), WhisperOptions(threads=threads))
        first_pass = (
            Moonshine(store.path(settings.stt.first_pass_model), threads) if settings.stt.has_first_pass else None
        )
        self._stt = SttCascade(main_recognizer, first_pass, settings.stt.first_pass_min_logprob)
        self._turn.warm_up()
        self._stt.warm_up()

    def silences(self, clip: HumanClip) -> Iterator[Silence]:
        """Yield every tentative end of speech in a clip, to which 1.5 s of faint noise is appended."""
        speech = clip.pcm()
        room = np.random.default_rng(0).integers(-ROOM_LEVEL, ROOM_LEVEL + 1, round(ROOM_S * STT_RATE))
        pcm = np.concatenate([speech, room.astype(np.int16)])
        start, pending = 0, None
        for event in edges(self._vad, self._settings.speech, pcm):
            match event:
                case SpeechStarted(at):
                    start = at
                case SpeechResumed(at) if pending is not None:
                    detected = at + RESUME_WINDOWS * VAD_WINDOW
                    yield replace(pending[1], resumed_ms=(detected - pending[0].speech_end) * 1000 / STT_RATE)
                    pending = None
                case SoftEnd():
                    pending = event, self._judge(clip, pcm, start, event)
        if pending is not None:
            yield pending[1]

    def _judge(self, clip: HumanClip, pcm: npt.NDArray[np.int16], start: int, end: SoftEnd) -> Silence:
        padding = round(self._settings.speech.prefix_padding_ms * STT_RATE / 1000)
        speech = pcm[max(0, start - padding) : end.at]
        started = time.perf_counter()
        probability = self._turn.predict(speech)
        between = time.perf_counter()
        text = self._stt.transcribe_batch([speech])[0].text
        ended = time.perf_counter()
        until = end.speech_end + round(self._settings.endpointing.ask_after_ms * STT_RATE / 1000)
        later = self._turn.predict(pcm[max(0, start - padding) : max(until, end.at)])
        soft_ms = (end.at - end.speech_end) * 1000 / STT_RATE
        times_ms = (between - started) * 1000, (ended - between) * 1000
        return Silence(
            clip.name,
            soft_ms=soft_ms,
            resumed_ms=None,
            probability=probability,
            later=later,
            judged_ms=times_ms[0],
            text=text,
            transcribed_ms=times_ms[1],
            sentence_over=sentence_over(clip.text, text),
        )


def sentence_over(text: str, transcript: str) -> bool:
    """Return True if the transcript, a beginning of `text`, reaches the end of one of its sentences.

    The end of the transcript is located in `text` by the least edit distance.
    """
    spelled = [(word, part) for word in text.split() for part in words(word)]
    distances = list(range(len(spelled) + 1))
    for count, word in enumerate(words(transcript), start=1):
        before, distances = distances, [count]
        for i, (_, part) in enumerate(spelled, start=1):
            distances.append(min(before[i] + 1, distances[i - 1] + 1, before[i - 1] + (word != part)))
    reached = min(range(len(distances)), key=lambda i: (distances[i], -i))
    return reached == len(spelled) or (reached > 0 and spelled[reached - 1][0].rstrip("\"')").endswith((".", "?", "!")))


HEADER = (
    f"{'policy':8} {'silences':>8} {'pauses':>6} {'asked':>6} {'cut':>4} "
    f"{'taken p50':>9} {'p90':>5} {'ready p50':>9} {'p90':>5}"
)


def row(found: PolicyOutcome) -> str:
    """Return one policy's line of the table.

    The columns are tentative ends, pauses, queries, cut-offs, then p50 and p90 of the latency and of `ready` in ms.
    """
    times = (
        f"{found.latency_p50_ms:9.0f} {found.latency_p90_ms:5.0f} {found.ready_p50_ms:9.0f} {found.ready_p90_ms:5.0f}"
    )
    return f"{found.policy:8} {found.silences:8d} {found.pauses:6d} {found.asked:6d} {found.cut:4d} {times}"


def main() -> None:
    """Run the study over every clip on this machine and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every-prompt", type=int, default=1, help="use every Nth telephone prompt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every silence and the outcomes to this file")
    arguments = parser.parse_args()
    settings = Settings()
    if missing := missing_packages():
        print(f"For more speech: apt-get install {' '.join(missing)}")
    listener = StudyListener(settings, arguments.threads)
    clips = human_clips(open_store(settings.models).path("human-clips"), arguments.every_prompt)
    silences = [silence for clip in clips for silence in listener.silences(clip)]
    outcomes = [outcome(policy, silences, settings) for policy in POLICIES]
    print(f"{len(clips)} clips of human speech; all times in ms of silence")
    print(HEADER)
    for found in outcomes:
        print(row(found))
    if arguments.json:
        report = {"outcomes": [asdict(o) for o in outcomes], "silences": [asdict(s) for s in silences]}
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
