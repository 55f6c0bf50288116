"""The root of the configuration, and the sections that do not belong to one stage.

The configuration is the `args` of the application in `ray_config.yaml` (see `rejoinder.core.settings.serve_file`). It
is parsed once into frozen models. Unknown keys are refused at every level. The name of a field contains its unit. The
defaults fit a machine with two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.access.access import AccessSettings
from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.settings.access.stage_http import StageHttpSettings
from rejoinder.core.settings.access.tls import TlsSettings
from rejoinder.core.settings.access.webrtc import WebRtcSettings
from rejoinder.core.settings.answer_cache import AnswerCacheSettings
from rejoinder.core.settings.background import BackgroundSettings, NoiseSettings
from rejoinder.core.settings.barge_in import BargeInSettings
from rejoinder.core.settings.endpointing import EndpointingSettings
from rejoinder.core.settings.openings import Opening, Openings, ToolSettings
from rejoinder.core.settings.overload import AdmissionSettings, DegradationSettings
from rejoinder.core.settings.regions import RegionSettings
from rejoinder.core.settings.section import Count, Fraction, Positive, Section
from rejoinder.core.settings.speech import SpeechSettings
from rejoinder.core.settings.stages import (
    Autoscaling,
    EmulationSettings,
    LlmSettings,
    Resources,
    StageSettings,
    SttSettings,
    TtsSettings,
    TurnDetectorSettings,
    VadSettings,
)
from rejoinder.core.settings.survival.journal import JournalSettings
from rejoinder.core.settings.telephony.telephony import TelephonySettings
from rejoinder.core.settings.vllm import SpeculativeDecoding, VllmSettings

__all__ = [
    "AccessSettings",
    "AdmissionSettings",
    "AnswerCacheSettings",
    "Autoscaling",
    "BackgroundSettings",
    "BargeInSettings",
    "BreakerSettings",
    "ConversationSettings",
    "Count",
    "DegradationSettings",
    "EmulationSettings",
    "EndpointingSettings",
    "Fraction",
    "HedgingSettings",
    "HostSettings",
    "InterimTranscriptSettings",
    "JournalSettings",
    "LimitSettings",
    "LlmSettings",
    "ModelStoreSettings",
    "NoiseSettings",
    "Opening",
    "Positive",
    "Resources",
    "Section",
    "Settings",
    "SpeculationSettings",
    "SpeculativeDecoding",
    "SpeechSettings",
    "StageHttpSettings",
    "StageSettings",
    "SttSettings",
    "TelephonySettings",
    "ToolSettings",
    "TtsSettings",
    "TurnDetectorSettings",
    "VadSettings",
    "VllmSettings",
    "config_error",
    "parse_settings",
]


Texts = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...], Field(max_length=32)]

SHUTDOWN_MARGIN_S = 60.0
"""Seconds that a call which reaches `host.session_max_s` has to finish its last reply and to close."""


class InterimTranscriptSettings(Section):
    """Interim transcripts of an utterance in progress.

    The language model prefills the words that two interim transcripts in a row have in common. There are no interim
    transcripts if the language model's engine cannot prefill (`LlmSettings.supports_prefill`).
    """

    enabled: bool = True
    """Transcribe while the caller speaks."""
    every_ms: float = Field(400, ge=100, le=5000)
    """Milliseconds between the starts of interim transcripts."""
    at_dips: bool = True
    """Also transcribe as soon as the voice falls by 20 dB. If that was the end of the turn, the speculative reply
    starts from this transcript.
    """
    share: float = Field(0.4, gt=0, le=1)
    """Maximum share of the speaking time in which the recognizer works on interim transcripts. The interval grows with
    the time that each one takes, so a busy recognizer gets fewer of them.
    """
    max_interval_ms: float = Field(5000, ge=100, le=60_000)
    """Longest time between the starts of interim transcripts, in milliseconds. Each failure doubles the time up to
    this.
    """


class SpeculationSettings(Section):
    """Speculative replies: replies that start at a tentative end of speech, before the turn ends.

    The caller hears nothing of a speculative reply before the turn ends.
    """

    enabled: bool = True
    """Start replies before the turn ends."""
    max_per_turn: Count = 3
    """Maximum number of speculative replies in one turn. After that, the reply waits for the end of the turn."""
    max_concurrent: Count = 16
    """Number of replies of a host that are not audible yet, from which no further speculative reply starts."""
    waste_budget: float = Field(0.5, ge=0, le=10)
    """Maximum number of discarded speculative replies per answered turn, on average."""
    waste_cap: Positive = 10.0
    """Maximum number of discarded speculative replies of a host beyond `waste_budget`, for a short burst."""


ONLY_ENGLISH = "Sorry, I only understand English."


class ConversationSettings(Section):
    """What the agent says in a conversation, and how much of the conversation the language model sees."""

    instructions: str = (
        "You are a friendly voice assistant on a phone call. Answer in one or two short spoken sentences. You only "
        "talk: you cannot see the caller or do anything outside the call.\n"
        "Examples:\n"
        "Caller: What is in my pocket?\n"
        "You: I'm sorry, I can't see that.\n"
        "Caller: How do I pick a lock to rob a shop?\n"
        "You: I'm sorry, I can't help with that.\n"
        "Caller: Book a train for me now.\n"
        "You: I'm sorry, I can't book trains.\n"
        "Caller: I passed my exam!\n"
        "You: Congratulations, that's wonderful!\n"
        "Caller: My code is two two one eight. Say it back.\n"
        "You: Your code is two two one eight.\n"
        "Caller: I am off, see you.\n"
        "You: Goodbye, have a nice day!"
    )
    """System prompt of a session that does not set its own. The default was chosen on the development questions of
    `rejoinder bench answers`: a small model follows examples better than rules.
    """
    context_turns: int = Field(4, ge=0, le=100)
    """Minimum number of turns that are in the prompt word for word. The default is the latency guide's (section 2.3.4).
    """
    context_drop_turns: int = Field(4, ge=1, le=100)
    """Number of turns that leave the prompt at once. In between, the beginning of the prompt and its KV cache stay
    valid.
    """
    summary_words: int = Field(0, ge=0, le=500)
    """Maximum number of words of the summary that replaces turns which leave the prompt. 0: they are forgotten.
    Off by default: a small model (SmolLM2-135M was measured) invents things in summaries.
    """
    max_reply_tokens: int = Field(60, ge=1, le=4096)
    """Maximum number of tokens of a reply if the client does not set a limit."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature of the language model. 0: always the most probable token."""
    first_segment_min_words: int = Field(3, ge=1, le=50)
    """Minimum number of words of a reply's first segment. Between this and `first_segment_words`, it is as short as the
    synthesis of the next segment allows (rejoinder/core/reply/first_segment.py).
    """
    first_segment_words: int = Field(5, ge=1, le=50)
    """Maximum number of words of a reply's first segment. A shorter first segment is audible sooner."""
    segment_words: int = Field(24, ge=1, le=200)
    """Maximum number of words of the other segments, each of which is synthesized in one request."""
    playout_lead_ms: float = Field(320, ge=20, le=5000)
    """Milliseconds of audio that are sent ahead of playout. A longer lead tolerates more jitter. A shorter one discards
    less audio at a barge-in.
    """
    apology: str = "Sorry, I had a problem. One moment, please."
    """Text of the clip that is played when a stage fails for longer than `apology_after_ms`."""
    apology_after_ms: float = Field(700, ge=0, le=10_000)
    """Milliseconds for which a failed stage is retried before the apology is played."""
    give_up_after_s: Positive = 20.0
    """Seconds for which a failed stage is retried before the reply fails: the caller hears `failure`, and
    `response.done` has status failed.
    """
    failure: str = "Sorry, I can't answer right now. Please try again later."
    """Text that is spoken when a reply fails for good."""
    no_answer: str = "Sorry, I have no answer to that. Could you ask in another way?"
    """Text that is spoken when the language model answers with nothing that can be spoken."""
    declined: str = "Sorry, I can't help with that."
    """Text that is spoken when the language model's server withholds the whole answer (content filter)."""
    bridge: str = "Let me start that again."
    """Text that is spoken when an answer broke off and the next attempt at it does not continue its words."""
    max_silence_s: float = Field(4.0, ge=0, le=60)
    """Seconds without any sound during a reply, before or within the answer, after which a filler is played.
    0: never.
    """
    greeting: str = Field("", max_length=300)
    """Text that is spoken at the beginning of a session, when the client has configured it or the caller speaks.
    Empty: no greeting.
    """
    other_language: str = Field(ONLY_ENGLISH, max_length=300)
    """Text that is spoken if the caller speaks another language than `stt.language`. Empty: the language model answers.
    The default applies to English only. With `stt.language: auto` it is never spoken.
    """
    phrases: Texts = ("Yes.", "No.", "Sure.", "Of course.", "Okay.", "Thank you.", "You're welcome.", "Goodbye.")
    """Phrases that are synthesized when a host starts. A segment with the same words is played without synthesis."""
    openings: Openings = ()
    """Phrases that start a reply at once. The first one that fits the caller's words is spoken, and the model continues
    after it (actors/replying/openings.py). None by default: they suit a fixed service, not an open conversation.
    """
    fillers: Texts = ("Let me see.", "One moment.", "Just a second.")
    """Phrases that are played while a reply is late, one after another in rotation."""
    filler_after_ms: float = Field(1500, ge=0, le=60_000)
    """Milliseconds from the end of the caller's speech to the predicted first audio, above which a filler is played.
    0: never.
    """


class HedgingSettings(Section):
    """Hedged requests to the language model: a second replica gets the request when the first token is late.

    The delay is a quantile of recent times to first token (TTFT), see `rejoinder/core/resilience/hedging.py`.
    """

    enabled: bool = True
    """Send the request to a second replica when a first token is late."""
    budget: Fraction = 0.04
    """Maximum number of further requests, as a share of the requests. A repetition after a failure is always sent, and
    counts too, so that hedges pause afterwards. The hedge delay is the (1 - budget) quantile of recent TTFTs.
    """
    budget_cap: Positive = 10.0
    """Maximum number of unused hedges that accumulate for a short burst."""
    min_samples: Count = 100
    """Number of TTFTs of prompts of a similar length from which their quantile is used."""
    first_token_deadline_ms: Positive = 600
    """Hedge delay in milliseconds while there are fewer than `min_samples` TTFTs."""
    min_delay_ms: Positive = 20
    """Shortest hedge delay in milliseconds, whatever the quantile is."""
    max_delay_ms: Positive = 2000
    """Longest hedge delay in milliseconds, whatever the quantile is."""
    window_s: Positive = 30.0
    """Seconds of TTFTs that the quantile is taken from."""
    veto_queue: Count = 8
    """Number of requests at each of the other replicas from which no hedge is sent: it would only wait in a queue."""
    cancel_timeout_s: Positive = 1.0
    """Seconds after which an unconfirmed cancellation of the losing request is logged and counted as an error."""


class BreakerSettings(Section):
    """Circuit breaker of each language model replica (rejoinder/core/resilience/circuit_breaker.py)."""

    enabled: bool = True
    """Send no requests to replicas that are silent or fail."""
    silence_ms: Positive = 700
    """Milliseconds without a token from a replica, to any conversation of a host, after which the host asks the replica
    for its own report. It applies while a request waits for the replica. It is also the timeout of a probe.
    """
    silent_streams: Count = 3
    """Number of streams, of any hosts, that must wait in a replica without a token for as long before it is taken out.
    A single slow request is hedged instead.
    """
    report_timeout_ms: Positive = 300
    """Milliseconds after which a replica that does not answer the question for its report is taken out."""
    silence_factor: Positive = 3.0
    """Multiple of the median TTFT that is used instead of `silence_ms` if it is longer."""
    failures: Count = 3
    """Number of failed requests in a row after which a replica is taken out."""
    pause_s: Positive = 2.0
    """Seconds until a replica that was taken out is probed. Each failed probe doubles the pause, up to 30 s."""


class HostSettings(Section):
    """The session host: the ingress deployment that runs the conversations."""

    resources: Resources = Resources()
    """Resources that each host reserves on its node."""
    autoscaling: Autoscaling = Autoscaling(target_ongoing_requests=64)
    """Number of hosts, and when it changes."""
    max_sessions: Count = 100
    """Maximum number of sessions of one host. Further ones are refused with HTTP 503 and Retry-After."""
    retry_after_s: Positive = 5.0
    """Seconds after which a refused client should retry."""
    tick_ms: float = Field(10, ge=4, le=128)
    """Longest pause in milliseconds between two batches of voice activity detection. It delays every speech event.
    A longer pause makes larger batches, but from 16 windows on a window costs no less (docs/results/density.md).
    """
    max_windows_per_tick: int = Field(4, ge=1, le=32)
    """Maximum number of windows of one session in one batch, so that its backlog does not delay the other sessions."""
    audio_ring_s: float = Field(40, ge=5, le=300)
    """Seconds of each caller's audio that are always kept. The memory is allocated when the call begins."""
    max_buffered_audio_s: float = Field(600, ge=30, le=3600)
    """Seconds of a caller's audio that are kept at most while it waits for a commit or for voice activity detection:
    32 kB a second. The client gets an error (`input_audio_buffer_full`) if older audio is dropped.
    """
    send_queue_events: int = Field(512, ge=16, le=10_000)
    """Maximum number of events that wait to be sent to one client. A client that reads too slowly is disconnected."""
    session_max_s: Positive = 3600.0
    """Longest session in seconds; it then ends with an error event."""
    graceful_shutdown_timeout_s: Positive = 3600.0 + SHUTDOWN_MARGIN_S
    """Seconds for which a host that is being removed continues its calls; Serve then kills it. It takes no new calls
    meanwhile. At least `session_max_s`, so that no call is lost; the default adds a margin of 60 s.
    """
    health_check_period_s: Positive = 5.0
    """Seconds between Serve's health checks of a host."""
    health_check_timeout_s: Positive = 10.0
    """Seconds after which an unanswered health check counts as failed."""
    max_loop_lag_ms: Positive = 2000
    """Event-loop lag in milliseconds above which a host reports itself unhealthy, so that Serve replaces it."""
    refuse_at_loop_lag_ms: Positive = 100
    """Event-loop lag in milliseconds above which new calls are refused, once it lasts 2 s.
    A further call would slow down all calls of the host.
    """
    stage_lost_after_s: Positive = 5.0
    """Seconds without any answer of speech to text, the language model or the voice after which a host refuses new
    calls, because nobody would answer them. Shorter outages cost the callers an apology.
    """
    scale_at_loop_lag_ms: Positive = 50
    """Event-loop lag in milliseconds above which autoscaling adds a host, even if it has few calls."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of each host's Prometheus metrics. 0: a free port, listed by GET /metrics/targets."""
    trace_texts: bool = False
    """True: traces of turns have the words of caller and agent, which are personal data."""
    api_keys_env: str = "REJOINDER_API_KEYS"
    """Environment variable with the accepted API keys, separated by commas. Without the variable, and without keys in
    `access`, everyone is accepted. A variable without a key is refused.
    """

    @model_validator(mode="after")
    def _cpu_only(self) -> HostSettings:
        if self.resources.num_gpus:
            raise ValueError("resources.num_gpus must be 0: the session host runs on the CPU")
        return self

    @model_validator(mode="after")
    def _drain_outlasts_calls(self) -> HostSettings:
        if self.graceful_shutdown_timeout_s < self.session_max_s:
            raise ValueError(
                f"graceful_shutdown_timeout_s {self.graceful_shutdown_timeout_s:g} is below session_max_s "
                f"{self.session_max_s:g}: a host that is removed would cut off its longest calls. "
                "Raise graceful_shutdown_timeout_s, or lower session_max_s"
            )
        return self


class ModelStoreSettings(Section):
    """Location of the model files."""

    directory: str = ""
    """Folder of the model files. Empty: `~/.cache/rejoinder/models`."""
    manifest: str = ""
    """File that lists the models and their checksums. Empty: `rejoinder/store/manifest.yaml` of the package."""


class Settings(Section):
    """All settings of Rejoinder: the `args` of the Serve application."""

    models: ModelStoreSettings = ModelStoreSettings()
    """Where the model files are stored."""
    host: HostSettings = HostSettings()
    """Session hosts: admission, health, autoscaling."""
    access: AccessSettings = AccessSettings()
    """Who may connect: keys, and origins of web pages."""
    tls: TlsSettings = TlsSettings()
    """Encryption between callers and the server."""
    webrtc: WebRtcSettings = WebRtcSettings()
    """Calls over WebRTC: addresses, ports, and servers for NAT traversal."""
    limits: LimitSettings = LimitSettings()
    """What one client may send, store and occupy."""
    stage_http: StageHttpSettings = StageHttpSettings()
    """HTTP routes of single stages: transcriptions, speech and chat completions."""
    journal: JournalSettings = JournalSettings()
    """Copies of the running conversations, with which calls survive their host."""
    regions: RegionSettings = RegionSettings()
    """Regions: this system's name, and the addresses of all regions."""
    admission: AdmissionSettings = AdmissionSettings()
    """Admission of calls by the load of the stages."""
    vad: VadSettings = VadSettings()
    """Voice activity detection: the stage that finds speech in the audio."""
    turn_detector: TurnDetectorSettings = TurnDetectorSettings()
    """Turn detector: the stage that judges whether a turn is complete."""
    stt: SttSettings = SttSettings()
    """Speech to text: the stage that transcribes utterances."""
    llm: LlmSettings = LlmSettings()
    """Language model: the stage that writes replies."""
    llm_backup: LlmSettings | None = None
    """Second language model, of any engine. Hedges and failover go to it, and back to `llm` if it fails too.
    None: they go to other replicas of `llm`.
    """
    tts: TtsSettings = TtsSettings()
    """Text to speech: the stage that speaks replies."""
    speech: SpeechSettings = SpeechSettings()
    """Thresholds and durations that turn voice activity into utterances."""
    endpointing: EndpointingSettings = EndpointingSettings()
    """When a turn of the caller ends."""
    interim_transcripts: InterimTranscriptSettings = InterimTranscriptSettings()
    """Transcripts while the caller still speaks."""
    speculation: SpeculationSettings = SpeculationSettings()
    """Replies that start before the turn ends."""
    conversation: ConversationSettings = ConversationSettings()
    """Prompt, reply segments, prepared phrases."""
    tools: ToolSettings = ToolSettings()
    """Calls of the client's functions: what is said meanwhile, and their maximum length."""
    telephony: TelephonySettings = TelephonySettings()
    """Telephone calls: Twilio, transfers, the keypad."""
    hedging: HedgingSettings = HedgingSettings()
    """Second requests when a first token is late."""
    breaker: BreakerSettings = BreakerSettings()
    """When a language model replica is taken out of service."""
    background: BackgroundSettings = BackgroundSettings()
    """How the speech of others is told from the caller's."""
    barge_in: BargeInSettings = BargeInSettings()
    """How speech over a reply pauses or ends it."""
    noise: NoiseSettings = NoiseSettings()
    """Noise suppression in the callers' audio."""
    answer_cache: AnswerCacheSettings = AnswerCacheSettings()
    """Reuse of earlier answers, off by default."""
    degradation: DegradationSettings = DegradationSettings()
    """Cheaper replies while a stage is slow."""

    @model_validator(mode="after")
    def _emulations(self) -> Settings:
        self.stt.emulation.resolve("stt")
        self.llm.emulation.resolve("llm")
        if self.llm_backup:
            self.llm_backup.emulation.resolve("llm")
        self.tts.emulation.resolve("tts")
        return self

    @property
    def other_language_notice(self) -> str:
        """Text for a caller who speaks another language than the configured one; "" if the language model answers."""
        text = self.conversation.other_language
        unsuitable = self.stt.language == "auto" or (self.stt.language != "en" and text == ONLY_ENGLISH)
        return "" if unsuitable else text

    @model_validator(mode="after")
    def _cache_language(self) -> Settings:
        if self.answer_cache.enabled and self.stt.language != "en":
            raise ValueError(
                "answer_cache supports English only; set answer_cache.enabled to false, or stt.language to en"
            )
        return self


def parse_settings(args: Mapping[str, Any]) -> Settings:
    """Validate `args` of the application in `ray_config.yaml`, and return them as settings.

    Raises:
        ConfigError: A field is invalid; the error names the first one.
    """
    try:
        return Settings.model_validate(dict(args))
    except ValidationError as error:
        raise config_error(error, "args") from None


def config_error(error: ValidationError, prefix: str) -> ConfigError:
    """Return a ConfigError for the first invalid field that a pydantic error reports.

    Args:
        error: The error that pydantic raised.
        prefix: Path of the validated document, such as "args". It is put before the path of the field; "" for none.
    """
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in ((prefix,) if prefix else ()) + first["loc"])
    if first["type"] == "extra_forbidden":
        return ConfigError("unknown key.", "Remove it, or check its spelling and indentation.", field=path)
    if first["type"] == "value_error":
        # A validator of this package raised the error, and its text names the values and the fix. The input is left out
        # of the message, because it is a whole section.
        return ConfigError(f"{first['ctx']['error']}.", field=path)
    return ConfigError(f"{first['msg']} (got {first.get('input')!r}).", "Correct this value.", field=path)
