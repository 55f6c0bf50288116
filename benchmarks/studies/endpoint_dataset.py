"""Features of every silence in the turn-taking corpus: `python -m benchmarks.studies.endpoint_dataset FOLDER`.

The real models run once over each event in which the caller speaks to a listening agent. FOLDER then has a file for
each split, `silences-development.jsonl` and `silences-held-out.jsonl`. Each line is the JSON object of one silence
(`SilenceFeatures`). A decision rule can be fitted and tested on them in seconds. Nothing may be fitted on the held-out
file.

A run that was stopped continues with the events that the file does not have yet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.studies.silences import edges, sentence_over
from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from deployments.engines.speech_in.smart_turn import SmartTurn
from deployments.engines.stt.cascade import SttCascade
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from deployments.vad import load_silero
from loadtest.turn_corpus.audio import EventAudio, audio, missing
from loadtest.turn_corpus.event import CorpusEvent, Scene, Split
from loadtest.turn_corpus.recipe import events
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW, Samples, pcm16_to_float
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.speech_detector import RESUME_WINDOWS, SoftEnd, SpeechEvent, SpeechResumed, SpeechStarted
from rejoinder.store import open_store
from rejoinder.store.human_corpus import human_clips

TURN_AT_MS = (200, 320, 480, 640, 800, 1000, 1500)
"""Silences in milliseconds at which the turn model is queried, besides the tentative end itself."""

WINDOWS_BEFORE, WINDOWS_AFTER = 31, 62
"""Number of voice activity windows that are written: before the end of speech (1 s), and at most after it (2 s)."""

# Speech that is detected more than this many seconds after the true end of the turn counts as background and not as
# speech of the caller.
_END_TOLERANCE_S = 0.3
# A silence counts as an inserted pause if it begins at most this many seconds before the pause. The detector may end
# speech early, at a soft last sound.
INSERTED_TOLERANCE_S = 0.3
# Seconds of audio that are passed to the turn model (Smart Turn), which reads no more.
VERDICT_S = 8.0


@dataclass(frozen=True, slots=True)
class SilenceFeatures:
    """One tentative end of speech and what is known then.

    Fields in ms are milliseconds after the last speech window, unless they are durations.

    Attributes:
        event: The corpus event's id.
        kind: The event's kind.
        voice: The event's voice.
        split: The event's part of the corpus.
        asked: What the agent said before; "" if nothing.
        label: "pause" (the agent must wait), "end" (it may answer) or "between" (natural silence after a whole
            sentence in the middle of a recording: neither right nor wrong).
        index: Number of the silence in the event, from 0.
        inserted: True if the pause was inserted by the recipe. False for a natural one and for an end.
        speech_s: Length of the utterance so far in seconds, up to the end of speech.
        speech_end_s: End of the last speech window, in seconds after the event's first sample.
        start_s: Start of the utterance in seconds after the event's first sample.
        soft_ms: When the tentative end was detected.
        resumed_ms: When the detector reports new speech; None if the caller's turn is over.
        earlier_ms: Lengths of the earlier silences of this event.
        turn: The turn model's probability that the turn is over, by milliseconds of silence. The first key is
            `soft_ms`. There is no key after the end of the pause.
        judged_ms: Duration of the turn model's inference at the tentative end.
        text: Transcript at the tentative end, with padding before it, as in a session.
        avg_logprob: Mean log-probability of the transcript's tokens.
        repeated: True if the main recognizer made the transcript, because the first pass had low confidence.
        transcribed_ms: Duration of the transcription.
        vad: Speech probability of each window of 32 ms, from WINDOWS_BEFORE windows before the end of speech until
            speech resumes, at most WINDOWS_AFTER after it.
        level_db: Level of the same windows in dBFS.
        wav: Path of the event's WAV file.
    """

    event: str
    kind: str
    voice: str
    split: str
    asked: str
    label: str
    index: int
    inserted: bool
    speech_s: float
    speech_end_s: float
    start_s: float
    soft_ms: float
    resumed_ms: float | None
    earlier_ms: tuple[float, ...]
    turn: dict[str, float]
    judged_ms: float
    text: str
    avg_logprob: float
    repeated: bool
    transcribed_ms: float
    vad: tuple[float, ...]
    level_db: tuple[float, ...]
    wav: str


@dataclass(frozen=True, slots=True)
class Windows:
    """Speech probability and level in dBFS of each window of an event."""

    vad: npt.NDArray[np.float32]
    level_db: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """One event with the facts that all its silences share.

    Attributes:
        event: The event.
        audio: The event's sound.
        text: The words that are spoken in the event.
        windows: Speech probability and level of the event's voice activity windows.
        earlier_ms: Lengths of the silences of this event that were processed so far, in milliseconds.
    """

    event: CorpusEvent
    audio: EventAudio
    text: str
    windows: Windows
    earlier_ms: list[float] = field(default_factory=list)

    def windows_around(self, soft: SoftEnd, resumed_ms: float | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the values of `SilenceFeatures.vad` and `SilenceFeatures.level_db` for one end of speech.

        `resumed_ms` is the silence in ms after which speech resumed; None if it did not.
        """
        last = soft.speech_end // VAD_WINDOW
        lasts = WINDOWS_AFTER if resumed_ms is None else round(resumed_ms * STT_RATE / 1000) // VAD_WINDOW
        shown = slice(max(0, last - WINDOWS_BEFORE), last + min(WINDOWS_AFTER, lasts))
        vad = tuple(round(float(value), 3) for value in self.windows.vad[shown])
        return vad, tuple(round(float(value), 1) for value in self.windows.level_db[shown])


class DatasetModels:
    """The real models: voice activity, turn detection and speech-to-text."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Load the models that `settings` name, each with `threads` threads."""
        store = open_store(settings.models)
        self.settings = settings
        self.vad: Silero = load_silero(settings)
        self.turn = SmartTurn(store.path(settings.turn_detector.model) / "smart-turn-v3.2-cpu.onnx", threads)
        main = Whisper(store.path(settings.stt.model), WhisperOptions(threads=threads))
        first = Moonshine(store.path(settings.stt.first_pass_model), threads) if settings.stt.has_first_pass else None
        self.stt = SttCascade(main, first, settings.stt.first_pass_min_logprob)
        self.turn.warm_up()
        self.stt.warm_up()
        self._texts = {clip.name: clip.text for clip in human_clips(store.path("human-clips"))}

    def silences(self, event: CorpusEvent) -> Iterator[SilenceFeatures]:
        """Yield the features of every silence of one event, in order."""
        made = audio(event)
        text = " ".join(part.text or self._texts.get(part.clip, "") for part in event.parts)
        heard = HeardEvent(event, made, text, self._windows(made.pcm))
        found = list(edges(self.vad, self.settings.speech, made.pcm))
        start = 0
        for number, happened in enumerate(found):
            if isinstance(happened, SpeechStarted):
                start = happened.at
            if not isinstance(happened, SoftEnd):
                continue
            resumed_ms = resumed_ms_after(happened, found[number + 1 :], made)
            yield self._features(heard, happened, resumed_ms, start=start)
            if resumed_ms is None:
                return
            heard.earlier_ms.append(resumed_ms)

    def _windows(self, pcm: npt.NDArray[np.int16]) -> Windows:
        state: Samples = np.zeros((1, STATE_SIZE), np.float32)
        vad, level = [], []
        for start in range(0, pcm.size - VAD_WINDOW + 1, VAD_WINDOW):
            window = pcm16_to_float(pcm[start : start + VAD_WINDOW].tobytes())[np.newaxis]
            probabilities, state = self.vad.step(window, state)
            vad.append(float(probabilities[0]))
            level.append(10 * np.log10(max(float(np.square(window).mean()), 1e-10)))
        return Windows(np.array(vad, np.float32), np.array(level, np.float32))

    def _features(self, heard: HeardEvent, soft: SoftEnd, resumed_ms: float | None, *, start: int) -> SilenceFeatures:
        """Return the features of one silence.

        Args:
            heard: The event.
            soft: The tentative end of speech at which the silence begins.
            resumed_ms: Silence in ms after which speech resumed; None if the caller's turn is over.
            start: First sample of the utterance.
        """
        event, made = heard.event, heard.audio
        begin = max(0, start - round(self.settings.speech.prefix_padding_ms * STT_RATE / 1000))
        before = time.perf_counter()
        turn = {f"{_soft_ms(soft):.0f}": self._judge(made.pcm, begin, soft.at)}
        between = time.perf_counter()
        transcript = self.stt.transcribe_batch([made.pcm[begin : soft.at]])[0]
        after = time.perf_counter()
        turn |= self._judge_later(made.pcm, begin, soft, resumed_ms)
        inserted = resumed_ms is not None and any(
            start_s - INSERTED_TOLERANCE_S <= soft.speech_end / STT_RATE <= end_s for start_s, end_s in made.pauses
        )
        label = "end" if resumed_ms is None else "pause"
        if label == "pause" and not inserted and sentence_over(heard.text, transcript.text):
            label = "between"
        vad, level_db = heard.windows_around(soft, resumed_ms)
        return SilenceFeatures(
            event.id,
            kind=event.kind,
            voice=event.voice,
            split=event.split.value,
            asked=event.asked,
            label=label,
            index=len(heard.earlier_ms),
            inserted=inserted,
            speech_s=round((soft.speech_end - start) / STT_RATE, 3),
            speech_end_s=round(soft.speech_end / STT_RATE, 3),
            start_s=round(start / STT_RATE, 3),
            soft_ms=_soft_ms(soft),
            resumed_ms=resumed_ms,
            earlier_ms=tuple(heard.earlier_ms),
            turn=turn,
            judged_ms=round((between - before) * 1000, 1),
            text=transcript.text,
            avg_logprob=round(float(transcript.avg_logprob), 3),
            repeated=transcript.repeated,
            transcribed_ms=round((after - between) * 1000, 1),
            vad=vad,
            level_db=level_db,
            wav=str(made.file),
        )

    def _judge_later(
        self, pcm: npt.NDArray[np.int16], begin: int, soft: SoftEnd, resumed_ms: float | None
    ) -> dict[str, float]:
        """Return the turn model's probability that the turn is over after each silence of TURN_AT_MS.

        The keys are the milliseconds as text. Silences are left out if they are not longer than that of the tentative
        end, or longer than the pause.

        Args:
            pcm: The event's audio.
            begin: First sample that the model may read.
            soft: The tentative end of speech.
            resumed_ms: Silence in ms after which speech resumed; None if the caller's turn is over.
        """
        found = {}
        for silence_ms in TURN_AT_MS:
            end = soft.speech_end + round(silence_ms * STT_RATE / 1000)
            lasts = resumed_ms is None or silence_ms < resumed_ms
            if silence_ms > _soft_ms(soft) and end <= pcm.size and lasts:
                found[str(silence_ms)] = self._judge(pcm, begin, end)
        return found

    def _judge(self, pcm: npt.NDArray[np.int16], begin: int, end: int) -> float:
        first = max(begin, end - round(VERDICT_S * STT_RATE))
        return round(float(self.turn.predict(pcm[first:end])), 4)


def _soft_ms(soft: SoftEnd) -> float:
    return (soft.at - soft.speech_end) * 1000 / STT_RATE


def resumed_ms_after(soft: SoftEnd, later: list[SpeechEvent], made: EventAudio) -> float | None:
    """Return the silence in ms after which speech resumes; None if the caller's turn is over.

    Args:
        soft: The tentative end of speech.
        later: The voice activity events after `soft`.
        made: The event's audio, with the true end of speech.
    """
    resumed = next((happened for happened in later if isinstance(happened, SpeechResumed | SpeechStarted)), None)
    if resumed is None or resumed.at / STT_RATE > made.speech_end_s + _END_TOLERANCE_S:
        return None
    return round((resumed.at + RESUME_WINDOWS * VAD_WINDOW - soft.speech_end) * 1000 / STT_RATE, 1)


def listening(split: Split) -> list[CorpusEvent]:
    """Return the events of a split in which the caller speaks to a listening agent, if this machine can make them."""
    chosen = [event for event in events() if event.scene is Scene.LISTENING and event.split is split]
    absent = {event.id for group in missing(chosen).values() for event in group}
    return [event for event in chosen if event.id not in absent]


def build(models: DatasetModels, split: Split, folder: Path) -> Path:
    """Add the silences of all events that are missing in the file of one part of the corpus. Return the file.

    The file is in `folder`.
    """
    file = folder / f"silences-{split.value}.jsonl"
    done = {json.loads(line)["event"] for line in file.read_text("utf-8").splitlines()} if file.exists() else set()
    for event in listening(split):
        if event.id in done:
            continue
        rows = [json.dumps(asdict(silence)) + "\n" for silence in models.silences(event)]
        with file.open("a", encoding="utf-8") as out:
            out.write("".join(rows))
    return file


def main() -> None:
    """Build the files of the chosen splits, and print what they contain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=[split.value for split in Split], action="append")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    models = DatasetModels(Settings(), options.threads)
    for name, gone in missing(events()).items():
        print(f"left out: {len(gone)} events, because {name} is not installed")
    for split in Split:
        if options.split and split.value not in options.split:
            continue
        file = build(models, split, options.folder)
        labels = [json.loads(line)["label"] for line in file.read_text("utf-8").splitlines()]
        counts = ", ".join(f"{labels.count(label)} {label}" for label in ("pause", "between", "end"))
        print(f"{file}: {len(labels)} silences ({counts})")


if __name__ == "__main__":
    main()
