"""Settings of speech detection. Import them from `rejoinder.core.settings.settings`."""

from __future__ import annotations

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Fraction, Section


class SpeechSettings(Section):
    """Speech detection: thresholds on the voice activity probability of each 32 ms window.

    If the latency guide has an optimized value for a setting (section 1.3), this value is the default.
    """

    threshold: Fraction = 0.5
    """Probability from which a window counts as the start of speech."""
    release_threshold: Fraction = 0.35
    """Probability below which a window counts as silence during speech; at most `threshold`."""
    drop_30db_threshold: Fraction = 0.6
    """Probability that a window needs to count as speech if it is 30 dB quieter than the utterance. The model's
    probability falls two or three windows after the sound does. 0: the level of the window is ignored.
    """
    drop_40db_threshold: Fraction = 0.98
    """Probability that a window needs to count as speech if it is 40 dB quieter than the utterance. No speech sound is
    that quiet. 0: the level of the window is ignored.
    """
    min_speech_ms: float = Field(96, ge=32, le=1000)
    """Milliseconds of speech from which an utterance starts. A shorter sound, such as a click, starts none."""
    soft_end_ms: float = Field(32, ge=32, le=1000)
    """Milliseconds of silence that make a tentative end of speech. Transcription and a speculative reply start then.
    The default is one window. 64 makes 2% fewer tentative ends and delays every turn by 32 ms
    (docs/results/latency.md).
    """
    prefix_padding_ms: float = Field(300, ge=0, le=2000)
    """Milliseconds of audio before the detected start that belong to the utterance, so that no first sound is lost."""
    max_utterance_s: float = Field(120, ge=1, le=3600)
    """Seconds after which an utterance without a pause is ended and answered. What follows is the next turn. Speech of
    more than 18 s is transcribed in windows while it continues.
    """

    @model_validator(mode="after")
    def _hysteresis(self) -> SpeechSettings:
        if self.release_threshold > self.threshold:
            raise ValueError(f"release_threshold {self.release_threshold} is above threshold {self.threshold}")
        return self
