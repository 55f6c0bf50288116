"""Tests of transcripts: words around a cut, segments, subtitles, and what a request may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.errors import CallerError
from rejoinder.core.http_api.subtitles import srt, vtt
from rejoinder.core.http_api.transcription import (
    CUE_S,
    RecordingPart,
    TimedText,
    TranscriptionOrder,
    cues,
    joined,
    words_of,
)
from rejoinder.core.wire.fields import Fields


def part(text: str, start_s: float, word_s: float = 0.5, *, overlaps: bool = False) -> RecordingPart:
    """Return a part whose words take `word_s` seconds each."""
    words = tuple(
        TimedText(word, start_s + number * word_s, start_s + (number + 1) * word_s)
        for number, word in enumerate(text.split())
    )
    return RecordingPart(text, start_s, words[-1].end_s, words, overlaps=overlaps)


def test_words_of_an_overlap_count_once() -> None:
    """Two parts that share their last and first words have each word once, in the text and in the times."""
    parts = [part("one two three four", 0.0, overlaps=True), part("three four five six", 1.0)]
    assert joined(parts) == "one two three four five six"
    words = words_of(parts)
    assert [word.text for word in words] == ["one", "two", "three", "four", "five", "six"]
    assert [word.start_s for word in words] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_words_without_times_share_the_time_of_their_part() -> None:
    """A part without known times divides its time among its words, in proportion to their letters."""
    words = words_of([RecordingPart("a bbb", 10.0, 14.0)])
    assert [(word.start_s, word.end_s) for word in words] == [(10.0, 11.0), (11.0, 14.0)]


def test_segments_end_with_sentences_and_are_short() -> None:
    """Segments end at a full stop, and before they exceed CUE_S. No word is lost."""
    text = "Yes. " + " ".join(["word"] * 40)
    found = cues([part(text, 0.0)])
    assert found[0].text == "Yes."
    assert all(cue.end_s - cue.start_s <= CUE_S for cue in found)
    assert " ".join(cue.text for cue in found) == text


def test_subtitle_files() -> None:
    """SubRip numbers its blocks and has a comma before milliseconds; WebVTT has a header and escapes <."""
    found = [TimedText("Hello.", 0.0, 1.25), TimedText("1 < 2.", 3725.0, 3726.5)]
    assert srt(found) == ("1\n00:00:00,000 --> 00:00:01,250\nHello.\n\n2\n01:02:05,000 --> 01:02:06,500\n1 < 2.\n\n")
    assert vtt(found).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello.\n\n")
    assert "1 &lt; 2." in vtt(found)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "de"}, "language"),
        ({"prompt": "Names: Zoe"}, "prompt"),
        ({"temperature": "0.7"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"response_format": "xml"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"include": ["logprobs"]}, "include"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"beam_size": "5"}, "beam_size"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """A field that the recognizers cannot honour is an error that names it."""
    with pytest.raises(CallerError) as refused:
        TranscriptionOrder.parse(Fields({"file": ""} | fields, ""), "en")
    assert refused.value.param == param


@pytest.mark.parametrize(
    "fields", [{"language": "en-US"}, {"language": ""}, {"temperature": "0"}, {"prompt": ""}, {"model": "whisper-1"}]
)
def test_neutral_values_are_accepted(fields: dict[str, str]) -> None:
    """The configured language, temperature 0, an empty prompt and any model name change nothing."""
    assert TranscriptionOrder.parse(Fields(fields, ""), "en") == TranscriptionOrder()
