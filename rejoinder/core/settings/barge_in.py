"""The configuration's part about speech over a reply (see `rejoinder.core.turns.barge_in`)."""

from __future__ import annotations

from pydantic import Field

from rejoinder.core.settings.section import Positive, Section

Phrases = dict[str, tuple[str, ...]]

BACKCHANNELS: Phrases = {
    "en": ("mm-hm", "mm", "mhm", "hm", "hmm", "uh-huh", "aha", "uh", "um", "yeah", "okay", "right", "i see", "oh", "ah")
}
STOP_WORDS: Phrases = {"en": ("stop", "wait", "hold on", "hang on", "quiet", "shut up", "excuse me")}


class BargeInSettings(Section):
    """Speech over a reply silences it at once; words end it, and without words it goes on where it was heard last.

    Languages are those of `stt.language`; one without an entry has no backchannels and no stop words.
    """

    # So many words that are no backchannel end the reply; 0: the first sound does, for good.
    min_words: int = Field(1, ge=0, le=10)
    # A reply that is being heard falls silent after so much speech: what ends a reply is only decided later.
    pause_after_ms: float = Field(64, ge=32, le=1000)
    # It goes on after so much silence, once it is known that there were no words.
    resume_after_ms: float = Field(300, ge=0, le=5000)
    # It goes on after so long without any word, whoever still makes a noise (LiveKit's false_interruption_timeout).
    confirm_timeout_ms: Positive = 2000
    # While a reply is paused, the speech over it is transcribed so often (with `interim_transcripts.enabled`).
    interim_every_ms: float = Field(400, ge=100, le=5000)
    # Speech that repeats what the reply has just said is its own echo, also for so long behind it.
    echo_guard: bool = True
    echo_tail_ms: float = Field(1000, ge=0, le=10_000)
    # An agreement so near to the reply's end is an answer, whatever the list says.
    answer_window_ms: float = Field(1000, ge=0, le=10_000)
    backchannels: Phrases = BACKCHANNELS
    # They end a reply whatever else was said, and however many words are needed.
    stop_words: Phrases = STOP_WORDS
