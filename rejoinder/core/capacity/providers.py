"""The latency guide's provider tables (sections 1.4 to 1.6 and 9) as data, and the choice among them.

All figures here are published, by the guide and through it by the providers; none was measured by us, and no two rows
need have been measured alike. A plan that uses one says so. `settings` is how our own configuration reaches the
engine today; empty if no deployment of ours speaks to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms
from rejoinder.core.measuring.service_curves import EmulatedStage


@dataclass(frozen=True, slots=True)
class Provider:
    """One row: latency from `low_ms` to `high_ms` as printed ("<300" is taken as 300, the worst that it allows).

    `hosted`: reached over the network, so it costs us no machine.
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
        """The middle of the printed range."""
        return (self.low_ms + self.high_ms) / 2

    @property
    def source(self) -> str:
        return f"published, guide section {self.section}"


def _openai(model: str, base_url: str = "https://api.openai.com/v1") -> dict[str, object]:
    return {"engine": "openai_api", "base_url": base_url, "model": model}


_WHISPER: dict[str, object] = {"engine": "whisper", "model": "whisper-base"}
VLLM_URL = "http://vllm:8000/v1"
"""Where a plan's configuration looks for a self-hosted OpenAI-compatible server: the reader's to replace."""

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
    """The provider for a stage, and whether its printed latency is within the tier's limit of 3.2 ("<", so equal is
    not). `passed_over`: faster rows that were not chosen, because no deployment of ours reaches them.
    """

    provider: Provider
    limit_ms: float
    passed_over: tuple[Provider, ...] = ()

    @property
    def holds(self) -> bool:
        return self.provider.typical_ms < self.limit_ms


def choose(
    stage: EmulatedStage, tier: Tier, rows: Sequence[Provider] = PROVIDERS, *, reachable: bool = False
) -> Choice:
    """The fastest row of the stage; if `reachable`, the fastest that our configuration can name.

    Raises ValueError if there is none.
    """
    ordered = sorted((row for row in rows if row.stage == stage), key=lambda row: (row.typical_ms, row.name))
    chosen = next((row for row in ordered if row.settings or not reachable), None)
    if chosen is None:
        raise ValueError(f"no published {stage} provider can be reached by a deployment of ours")
    faster = tuple(ordered[: ordered.index(chosen)])
    return Choice(chosen, component_limit_ms(_COMPONENT[stage], tier), faster)
