"""The latency guide's provider tables (sections 1.4 to 1.6 and 9) as data, and the choice of a provider.

The guide takes its figures from the providers. This project has measured none of them, and the providers may have
measured in different ways. A capacity plan marks these figures as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms
from rejoinder.core.measuring.service_curves import EmulatedStage


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of a provider table in the latency guide: published figures, not measured by this project.

    Attributes:
        stage: The stage that it serves.
        name: The provider's name in the guide.
        low_ms: Lower end of its latency in milliseconds. "<300" counts as 300.
        high_ms: Upper end of its latency in milliseconds.
        section: The guide's section that has the row.
        hosted: True if it is reached over the network, and so needs no machine of the operator.
        note: The guide's remark on the provider. Empty if there is none.
        settings: Configuration of the stage for this provider. Empty if no engine of the project supports it.
    """

    stage: EmulatedStage
    name: str
    low_ms: float
    high_ms: float
    section: str
    hosted: bool = True
    note: str = ""
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def typical_ms(self) -> float:
        """The middle of the published range of latencies, in milliseconds."""
        return (self.low_ms + self.high_ms) / 2

    @property
    def source(self) -> str:
        """Source of the figures as a text for reports: the guide's section."""
        return f"published, guide section {self.section}"


def _openai(model: str, base_url: str = "https://api.openai.com/v1") -> dict[str, object]:
    return {"engine": "openai_api", "base_url": base_url, "model": model}


_WHISPER: dict[str, object] = {"engine": "whisper", "model": "whisper-base"}
VLLM_URL = "http://vllm:8000/v1"
"""Placeholder address of a self-hosted OpenAI-compatible server in a planned configuration. Replace it."""

PROVIDERS: tuple[Provider, ...] = (
    Provider("stt", name="Deepgram Nova-3", low_ms=300, high_ms=300, section="1.4", note="<300 ms, streaming"),
    Provider("stt", name="AssemblyAI Universal-2", low_ms=300, high_ms=300, section="1.4", note="strong accuracy"),
    Provider("stt", name="Whisper Large v3 (Groq)", low_ms=300, high_ms=300, section="1.4"),
    Provider("stt", name="Whisper Large v3 (Fireworks)", low_ms=300, high_ms=300, section="1.4"),
    Provider("stt", name="GPT-4o-Transcribe", low_ms=320, high_ms=320, section="1.4"),
    Provider("stt", name="Gladia", low_ms=300, high_ms=300, section="1.4", note="<300 ms, streaming"),
    Provider("stt", name="Deepgram Nova-3 Streaming", low_ms=150, high_ms=150, section="9.1"),
    Provider(
        "stt", name="Whisper (edge deployment)", low_ms=100, high_ms=100, section="9.2", hosted=False, settings=_WHISPER
    ),
    Provider(
        "llm",
        name="GPT-4o-mini",
        low_ms=200,
        high_ms=400,
        section="1.5",
        note="high-volume, simple Q&A",
        settings=_openai("gpt-4o-mini"),
    ),
    Provider(
        "llm", name="GPT-4o", low_ms=400, high_ms=550, section="1.5", note="117+ tokens/s", settings=_openai("gpt-4o")
    ),
    Provider("llm", name="Gemini 2.5 Flash", low_ms=390, high_ms=390, section="1.5", note="268 tokens/s"),
    Provider("llm", name="Claude 3.5 Haiku", low_ms=360, high_ms=360, section="1.5"),
    Provider("llm", name="Claude 3.5 Sonnet", low_ms=600, high_ms=800, section="1.5", note="~85 tokens/s"),
    Provider(
        "llm",
        name="Mistral 7B (self-hosted)",
        low_ms=130,
        high_ms=130,
        section="1.5",
        hosted=False,
        note="~170 tokens/s",
        settings=_openai("mistral-7b-instruct", VLLM_URL),
    ),
    Provider(
        "llm",
        name="GPT-4o-mini or Gemini Flash",
        low_ms=250,
        high_ms=250,
        section="9.1",
        settings=_openai("gpt-4o-mini"),
    ),
    Provider("tts", name="Cartesia Sonic Turbo", low_ms=40, high_ms=40, section="1.6", note="fastest"),
    Provider("tts", name="ElevenLabs Flash v2.5", low_ms=75, high_ms=75, section="1.6"),
    Provider("tts", name="Inworld TTS-1.5-Mini", low_ms=130, high_ms=130, section="1.6", note="<130 ms"),
    Provider("tts", name="Inworld TTS-1.5-Max", low_ms=250, high_ms=250, section="1.6", note="<250 ms"),
    Provider("tts", name="AWS Polly", low_ms=100, high_ms=100, section="1.6"),
    Provider("tts", name="Deepgram Aura-2", low_ms=200, high_ms=200, section="1.6", note="<200 ms"),
    Provider("tts", name="OpenAI TTS", low_ms=200, high_ms=200, section="1.6"),
)

_COMPONENT = {"stt": Component.STT, "llm": Component.LLM, "tts": Component.TTS}


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider chosen for a stage.

    Attributes:
        provider: The provider.
        limit_ms: Limit of the stage in the tier, in milliseconds (section 3.2 of the guide).
        passed_over: Faster providers, not chosen because no engine of this system supports them.
    """

    provider: Provider
    limit_ms: float
    passed_over: tuple[Provider, ...] = ()

    @property
    def holds(self) -> bool:
        """True if the middle of the published range of latencies is below the limit; the guide writes "<"."""
        return self.provider.typical_ms < self.limit_ms


def choose(
    stage: EmulatedStage, tier: Tier, rows: Sequence[Provider] = PROVIDERS, *, reachable: bool = False
) -> Choice:
    """Return the provider of a stage with the lowest typical latency.

    Args:
        stage: The stage.
        tier: The latency tier whose limit applies.
        rows: The providers to choose from.
        reachable: Whether to choose only among providers that an engine of this system supports.

    Raises:
        ValueError: No provider of this stage can be chosen.
    """
    ordered = sorted((row for row in rows if row.stage == stage), key=lambda row: (row.typical_ms, row.name))
    chosen = next((row for row in ordered if row.settings or not reachable), None)
    if chosen is None:
        raise ValueError(f"no published {stage} provider is supported by an engine of this system")
    faster = tuple(ordered[: ordered.index(chosen)])
    return Choice(chosen, component_limit_ms(_COMPONENT[stage], tier), faster)
