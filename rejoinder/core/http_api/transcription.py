"""Requests to transcribe a recording (`POST /v1/audio/transcriptions`), and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from rejoinder.core.http_api.parameters import check_names
from rejoinder.core.turns.transcript_windows import merge
from rejoinder.core.wire.fields import Fields, Json, refuse

TranscriptForm = Literal["json", "verbose_json", "text", "srt", "vtt"]
FORMS: tuple[TranscriptForm, ...] = ("json", "verbose_json", "text", "srt", "vtt")

HONOURED = frozenset(
    {"file", "language", "response_format", "stream", "temperature", "prompt", "timestamp_granularities"}
)
IGNORED = frozenset({"model", "chunking_strategy"})
"""Parameters that change nothing: the recognizers are the same for all, and long recordings are always cut at pauses.
"""
NEUTRAL: dict[str, list[str]] = {"include": [], "known_speaker_names": [], "known_speaker_references": []}


@dataclass(frozen=True, slots=True)
class TranscriptionOrder:
    """How a recording is to be transcribed.

    Attributes:
        form: Form of the answer.
        words: True if the answer has the times of the words.
        segments: True if the answer has segments, where the form has them.
        events: True to send the text as server-sent events while it is recognized.
    """

    form: TranscriptForm = "json"
    words: bool = False
    segments: bool = True
    events: bool = False

    @classmethod
    def parse(cls, form: Fields, language: str) -> TranscriptionOrder:
        """Read a request for a transcription from a form. Raise CallerError if a field is invalid or not supported.

        Args:
            form: The fields of the multipart form, all of them texts, except lists: `timestamp_granularities`,
                `include` and the other fields whose names end with [].
            language: Language code of the recognizers, or "auto".
        """
        check_names(form, HONOURED, IGNORED, NEUTRAL)
        _check_language(form, language)
        if form.text("prompt", "").strip():
            remedy = "Leave it out: the recognizers take no prompt."
            raise refuse("prompt is not supported.", "prompt", code="unsupported_parameter", remedy=remedy)
        if _number(form, "temperature") != 0:
            remedy = "Leave it out or send 0: the most probable words are always taken."
            raise refuse("temperature is not supported.", "temperature", code="unsupported_parameter", remedy=remedy)
        wanted = form.choice("response_format", FORMS, "json")
        kinds = form.texts("timestamp_granularities", 8)
        if unknown := set(kinds) - {"word", "segment"}:
            path = "timestamp_granularities"
            raise refuse(f"{path} has {min(unknown)[:80]!r}.", path, remedy="Use word, segment or both.")
        if kinds and wanted != "verbose_json":
            path = "timestamp_granularities"
            raise refuse(f"{path} needs another form.", path, remedy="Set response_format to verbose_json.")
        events = form.choice("stream", ("true", "false", "True", "False", "1", "0"), "false").lower() in ("true", "1")
        if events and wanted in ("srt", "vtt", "verbose_json"):
            raise refuse("stream has no such form.", "stream", remedy="Set response_format to json or text.")
        segments = not kinds or "segment" in kinds
        return cls(cast(TranscriptForm, wanted), "word" in kinds, segments=segments, events=events)

    @property
    def timed(self) -> bool:
        """True if the recognizer has to tell the times of the words."""
        return self.words or self.form in ("srt", "vtt", "verbose_json")


def _check_language(form: Fields, language: str) -> None:
    wanted = form.text("language", "", limit=32).replace("_", "-").split("-")[0].lower()
    if wanted and language not in ("auto", wanted):
        remedy = f"Leave it out or send {language}: the setting stt.language decides."
        raise refuse(f"language {wanted!r} is not served.", "language", code="unsupported_language", remedy=remedy)


def _number(form: Fields, name: str) -> float:
    text = form.text(name, "0", limit=32)
    try:
        return float(text or "0")
    except ValueError:
        raise refuse(f"{name} must be a number.", name, code="invalid_type") from None


@dataclass(frozen=True, slots=True)
class TimedText:
    """A word or a segment of a transcript.

    Attributes:
        text: The text, without spaces around it.
        start_s: Seconds from the start of the recording to its start.
        end_s: Seconds from the start of the recording to its end.
    """

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class RecordingPart:
    """The transcript of one part of a recording.

    Attributes:
        text: Its words.
        start_s: Where it starts, in seconds from the start of the recording.
        end_s: Where it ends.
        words: Its words with their times in the recording. Empty if they are not known.
        avg_logprob: Mean log-probability of the tokens.
        language: Code of the language.
        overlaps: True if the next part begins before this one ends.
    """

    text: str
    start_s: float
    end_s: float
    words: tuple[TimedText, ...] = ()
    avg_logprob: float = 0.0
    language: str = ""
    overlaps: bool = False


def joined(parts: Sequence[RecordingPart]) -> str:
    """Return the text of consecutive parts, with the words of an overlap once."""
    text, overlaps = "", False
    for part in parts:
        text, overlaps = merge(text, part.text, overlaps=overlaps), part.overlaps
    return text


def words_of(parts: Sequence[RecordingPart]) -> list[TimedText]:
    """Return the words of consecutive parts with their times.

    In an overlap, words of the first part count up to its middle, and words of the second part after that. The words
    of a part whose times are not known get times in proportion to their letters.
    """
    words: list[TimedText] = []
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        known = part.words or spread(part.text, part.start_s, part.end_s)
        begin = (words[-1].end_s) if words else part.start_s
        end = (part.end_s + after.start_s) / 2 if after and part.overlaps else part.end_s
        words += [
            replace(word, start_s=max(begin, word.start_s))
            for word in known
            if begin <= (word.start_s + word.end_s) / 2 <= end
        ]
    return words


def spread(text: str, start_s: float, end_s: float) -> tuple[TimedText, ...]:
    """Return the words of a text, with the time from `start_s` to `end_s` divided in proportion to their letters."""
    words = text.split()
    total = sum(map(len, words))
    found, at = [], start_s
    for word in words:
        length = (end_s - start_s) * len(word) / total
        found.append(TimedText(word, at, at + length))
        at += length
    return tuple(found)


def verbose(parts: Sequence[RecordingPart], order: TranscriptionOrder, seconds: float, language: str) -> Json:
    """Return the answer `verbose_json`.

    Args:
        parts: The parts of the recording, in order.
        order: What the client wants.
        seconds: Length of the recording.
        language: Code of the expected language.
    """
    found: Json = {
        "task": "transcribe",
        "language": next((part.language for part in parts if part.language), language),
        "duration": round(seconds, 3),
        "text": joined(parts),
    }
    if order.segments:
        found["segments"] = [_segment(number, part) for number, part in enumerate(cues(parts))]
    if order.words:
        found["words"] = [
            {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
            for word in words_of(parts)
        ]
    return found | {"usage": usage(seconds)}


def usage(seconds: float) -> Json:
    """Return the field `usage` of an answer: the length of the recording."""
    return {"type": "duration", "seconds": max(1, round(seconds))}


def _segment(number: int, cue: TimedText) -> Json:
    """Return a segment in the form of Whisper's. Fields that the recognizers do not know have neutral values."""
    return {
        "id": number,
        "seek": 0,
        "start": round(cue.start_s, 3),
        "end": round(cue.end_s, 3),
        "text": cue.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


CUE_S = 7.0
"""Longest time that one subtitle is shown, in seconds, and longest segment: what is read in comfort."""
CUE_CHARACTERS = 84
"""Most characters of one subtitle: two lines of 42, the usual limit of broadcasters."""
_SENTENCE_ENDS = ".!?。！？"


def cues(parts: Sequence[RecordingPart]) -> list[TimedText]:
    """Return the transcript as segments that can be shown as subtitles.

    A segment ends with a sentence, and before it exceeds CUE_S or CUE_CHARACTERS.
    """
    found: list[TimedText] = []
    open_words: list[TimedText] = []

    def close() -> None:
        if open_words:
            text = " ".join(word.text for word in open_words)
            found.append(TimedText(text, open_words[0].start_s, open_words[-1].end_s))
            open_words.clear()

    for word in words_of(parts):
        length = sum(len(each.text) + 1 for each in open_words) + len(word.text)
        if open_words and (length > CUE_CHARACTERS or word.end_s - open_words[0].start_s > CUE_S):
            close()
        open_words.append(word)
        if word.text[-1] in _SENTENCE_ENDS:
            close()
    close()
    return found
