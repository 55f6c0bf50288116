"""What asking the turn model less costs, on human speech: `python -m benchmarks.studies.turn_study`.

Every clip is heard once, with the real models: each silence of `soft_end_ms` is transcribed and judged, and both are
timed. Then the same silences are decided by three policies, on paper:

    always     the turn model is asked at every soft end and its answer awaited
    sparing    ours: it is asked when the transcript is there and leaves doubt, or after `ask_after_ms` of silence, with
               that silence; a transcript that reads finished decides if it is there before the verdict
    silent     the turn model never answers: words that read finished decide, the rest waits for the fallback silence

A pause that the speaker ended in time costs nothing; one that was taken for the end is a cut. Latency is the silence
after the last word at which the turn is taken, and `ready` when the transcript is there as well, which is what a reply
waits for.
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
from rejoinder.core.turns.end_of_turn import complete
from rejoinder.core.turns.endpointing import TurnDetection, wait_s
from rejoinder.core.turns.speech_detector import (
    RESUME_WINDOWS,
    SoftEnd,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechState,
    step,
)
from rejoinder.core.turns.transcript_ending import TranscriptEnding, ending
from rejoinder.store import open_store
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips, missing_packages

POLICIES = ("always", "sparing", "silent")
ROOM_S = 1.5
ROOM_LEVEL = 8


@dataclass(frozen=True, slots=True)
class Silence:
    """One soft end: `soft_ms` after the last speech it was known, and `resumed_ms` after it speech was believed again;
    None: it was the end. `later`: the turn model's word on `ask_after_ms` of silence. `sentence_over`: a sentence of
    the clip's own text ends here.
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
    """After so much silence the turn is taken, unless speech goes on before; `asked`: the turn model was."""

    taken_ms: float
    asked: bool


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """One policy over all silences; times are ms of silence."""

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
    """When this policy takes the turn, if the silence lasts."""
    rules = settings.endpointing
    told_ms = silence.soft_ms + silence.transcribed_ms
    words = ending(silence.text, settings.stt.language)
    finished = words is TranscriptEnding.FINISHED
    if policy == "always":
        known_ms = silence.soft_ms + silence.judged_ms
        fused = complete(silence.probability, words if told_ms <= known_ms else None)
        return Decision(_taken_ms(settings, fused, known_ms), asked=True)
    asked_ms = max(silence.soft_ms, min(rules.ask_after_ms, told_ms))
    lasts = silence.resumed_ms is None or silence.resumed_ms > asked_ms
    asked = lasts and not (finished and told_ms <= asked_ms)
    if finished and (policy == "silent" or told_ms <= asked_ms + silence.judged_ms):
        return Decision(_taken_ms(settings, rules.finished_probability, told_ms), asked)
    if policy == "silent":
        return Decision(_taken_ms(settings, None, silence.soft_ms + rules.verdict_timeout_ms), asked)
    known_ms = asked_ms + silence.judged_ms
    return Decision(
        _taken_ms(settings, complete(silence.later, words if told_ms <= known_ms else None), known_ms), asked
    )


def _taken_ms(settings: Settings, probability: float | None, known_ms: float) -> float:
    return max(known_ms, wait_s(TurnDetection(), settings.endpointing, probability) * 1000)


def outcome(policy: str, silences: Sequence[Silence], settings: Settings) -> PolicyOutcome:
    """One policy over all silences."""
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
    """What voice activity makes of 16 kHz audio."""
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
    """Hears clips with the real models."""

    def __init__(self, settings: Settings, threads: int) -> None:
        store = open_store(settings.models)
        self._settings = settings
        self._vad: Silero = load_silero(settings)
        self._turn = SmartTurn(store.path(settings.turn_detector.model) / "smart-turn-v3.2-cpu.onnx", threads)
        careful = Whisper(store.path(settings.stt.model), WhisperOptions(threads=threads))
        quick = Moonshine(store.path(settings.stt.first_pass_model), threads) if settings.stt.hears_twice else None
        self._stt = SttCascade(careful, quick, settings.stt.first_pass_min_logprob)
        self._turn.warm_up()
        self._stt.warm_up()

    def hear(self, clip: HumanClip) -> Iterator[Silence]:
        """Every soft end of a clip in a quiet room."""
        speech = clip.pcm()
        room = np.random.default_rng(0).integers(-ROOM_LEVEL, ROOM_LEVEL + 1, round(ROOM_S * STT_RATE))
        pcm = np.concatenate([speech, room.astype(np.int16)])
        start, open_end = 0, None
        for event in edges(self._vad, self._settings.speech, pcm):
            match event:
                case SpeechStarted(at):
                    start = at
                case SpeechResumed(at) if open_end is not None:
                    believed = at + RESUME_WINDOWS * VAD_WINDOW
                    yield replace(open_end[1], resumed_ms=(believed - open_end[0].speech_end) * 1000 / STT_RATE)
                    open_end = None
                case SoftEnd():
                    open_end = event, self._judge(clip, pcm, start, event)
        if open_end is not None:
            yield open_end[1]

    def _judge(self, clip: HumanClip, pcm: npt.NDArray[np.int16], start: int, end: SoftEnd) -> Silence:
        padding = round(self._settings.speech.prefix_padding_ms * STT_RATE / 1000)
        heard = pcm[max(0, start - padding) : end.at]
        began = time.perf_counter()
        probability = self._turn.predict(heard)
        between = time.perf_counter()
        text = self._stt.transcribe_batch([heard])[0].text
        ended = time.perf_counter()
        until = end.speech_end + round(self._settings.endpointing.ask_after_ms * STT_RATE / 1000)
        later = self._turn.predict(pcm[max(0, start - padding) : max(until, end.at)])
        soft_ms = (end.at - end.speech_end) * 1000 / STT_RATE
        times_ms = (between - began) * 1000, (ended - between) * 1000
        over = sentence_over(clip.text, text)
        return Silence(
            clip.name,
            soft_ms=soft_ms,
            resumed_ms=None,
            probability=probability,
            later=later,
            judged_ms=times_ms[0],
            text=text,
            transcribed_ms=times_ms[1],
            sentence_over=over,
        )


def sentence_over(text: str, heard: str) -> bool:
    """Whether a sentence of `text` ends with the last word that `heard` transcribes (by the least edit distance)."""
    spelled = [(word, part) for word in text.split() for part in words(word)]
    distances = list(range(len(spelled) + 1))
    for count, said in enumerate(words(heard), start=1):
        before, distances = distances, [count]
        for at, (_, part) in enumerate(spelled, start=1):
            distances.append(min(before[at] + 1, distances[at - 1] + 1, before[at - 1] + (said != part)))
    reached = min(range(len(distances)), key=lambda at: (distances[at], -at))
    return reached == len(spelled) or (reached > 0 and spelled[reached - 1][0].rstrip("\"')").endswith((".", "?", "!")))


HEADER = (
    f"{'policy':8} {'silences':>8} {'pauses':>6} {'asked':>6} {'cut':>4} "
    f"{'taken p50':>9} {'p90':>5} {'ready p50':>9} {'p90':>5}"
)


def row(found: PolicyOutcome) -> str:
    """One line of the table."""
    times = (
        f"{found.latency_p50_ms:9.0f} {found.latency_p90_ms:5.0f} {found.ready_p50_ms:9.0f} {found.ready_p90_ms:5.0f}"
    )
    return f"{found.policy:8} {found.silences:8d} {found.pauses:6d} {found.asked:6d} {found.cut:4d} {times}"


def main() -> None:
    """Run the study over every clip this machine has, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every-prompt", type=int, default=1, help="of the telephone prompts, take every Nth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every silence and the outcomes to this file")
    arguments = parser.parse_args()
    settings = Settings()
    if missing := missing_packages():
        print(f"For more speech: apt-get install {' '.join(missing)}")
    listener = StudyListener(settings, arguments.threads)
    clips = human_clips(open_store(settings.models).path("human-clips"), arguments.every_prompt)
    silences = [silence for clip in clips for silence in listener.hear(clip)]
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
