"""Settings of barge-in: speech of the caller over a reply (see `rejoinder.core.turns.barge_in`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Positive, Section

Phrases = dict[str, tuple[str, ...]]

BACKCHANNELS: Phrases = {
    "en": (
        "mm-hm",
        "mm",
        "mhm",
        "hm",
        "hmm",
        "uh-huh",
        "aha",
        "uh",
        "um",
        "yeah",
        "okay",
        "right",
        "i see",
        "oh",
        "ah",
        "sure",
    )
}
STOP_WORDS: Phrases = {"en": ("stop", "wait", "hold on", "hang on", "quiet", "shut up", "excuse me")}


class BargeInSettings(Section):
    """Settings of barge-in: by default any speech pauses a reply, and words end it.

    If the speech contains no words, the paused reply resumes where playback stopped.
    """

    min_words: int = Field(1, ge=0, le=10)
    """Number of words, backchannels excluded, from which speech ends a reply. 0: any speech ends it, without a pause
    first.
    """
    announce: Literal["auto", "speech", "words"] = "auto"
    """When the client learns of speech over a reply (`input_audio_buffer.speech_started`).

    "speech": at once, so that it stops playing at once. "words": as soon as words address the agent, and never if the
    reply resumes; until then the client plays the audio that it has, at most `conversation.playout_lead_ms`. "auto":
    "words" for clients that drop a reply for good at this event (LiveKit's plugin and OpenAI's agents SDKs), "speech"
    for others.
    """
    pause_after_ms: float = Field(64, ge=32, le=1000)
    """Milliseconds of speech after which an audible reply is paused. The default is two voice activity windows."""
    resume_after_ms: float = Field(300, ge=0, le=5000)
    """Milliseconds of silence after which a paused reply resumes, if the speech contained no words."""
    unsure_ms: float = Field(600, ge=0, le=5000)
    """Milliseconds up to which speech over a reply is too short to be believed if the recognizer is not sure of its
    words (`unsure_logprob`). The reply then resumes, as after speech without words. Stop words and short answers such
    as "no" or "yes" are always believed.
    """
    unsure_logprob: float = Field(-0.55, le=0)
    """Mean log-probability of a transcript's tokens below which the recognizer is not sure of the words."""
    confirm_timeout_ms: Positive = 2000
    """Milliseconds without a word after which a paused reply resumes even if the noise continues.
    The default is LiveKit's `false_interruption_timeout`.
    """
    interim_every_ms: float = Field(400, ge=100, le=5000)
    """Milliseconds between interim transcripts of speech over a paused reply.
    It applies if `interim_transcripts.enabled` is true.
    """
    echo_guard: bool = True
    """Ignore speech that repeats the words of the current reply: it is an echo of the agent's audio."""
    echo_tail_ms: float = Field(1000, ge=0, le=10_000)
    """Milliseconds after the end of a reply in which the echo guard still applies."""
    answer_window_ms: float = Field(1000, ge=0, le=10_000)
    """Milliseconds before the end of a reply in which a backchannel counts as an answer: "yeah" then ends the reply."""
    backchannels: Phrases = BACKCHANNELS
    """Phrases that do not end a reply, by `stt.language`. A language without an entry has none."""
    stop_words: Phrases = STOP_WORDS
    """Phrases that always end a reply, whatever `min_words` says, by `stt.language`.
    A language without an entry has none.
    """

    def announces_words(self, drops_replies: bool) -> bool:
        """Return True if a client learns of speech over a reply only when its words address the agent.

        `drops_replies` is True for a client that drops a reply for good when it learns of speech.
        """
        return self.announce == "words" or (self.announce == "auto" and drops_replies)
