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
    Provider("stt", "Deepgram Nova-3", 300, 300, "1.4", note="<300 ms, streaming"),
    Provider("stt", "AssemblyAI Universal-2", 300, 300, "1.4", note="strong accuracy"),
    Provider("stt", "Whisper Large v3 (Groq)", 300, 300, "1.4"),
    Provider("stt", "Whisper Large v3 (Fireworks)", 300, 300, "1.4"),
    Provider("stt", "GPT-4o-Transcribe", 320, 320, "1.4"),
    Provider("stt", "Gladia", 300, 300, "1.4", note="<300 ms, streaming"),
    Provider("stt", "Deepgram Nova-3 Streaming", 150, 150, "9.1"),
    Provider("stt", "Whisper (edge deployment)", 100, 100, "9.2", hosted=False, settings=_WHISPER),
    Provider("llm", "GPT-4o-mini", 200, 400, "1.5", note="high-volume, simple Q&A", settings=_openai("gpt-4o-mini")),
    Provider("llm", "GPT-4o", 400, 550, "1.5", note="117+ tokens/s", settings=_openai("gpt-4o")),
    Provider("llm", "Gemini 2.5 Flash", 390, 390, "1.5", note="268 tokens/s"),
    Provider("llm", "Claude 3.5 Haiku", 360, 360, "1.5"),
    Provider("llm", "Claude 3.5 Sonnet", 600, 800, "1.5", note="~85 tokens/s"),
    Provider(
        "llm",
        "Mistral 7B (self-hosted)",
        130,
        130,
        "1.5",
        hosted=False,
        note="~170 tokens/s",
        settings=_openai("mistral-7b-instruct", VLLM_URL),
    ),
    Provider("llm", "GPT-4o-mini or Gemini Flash", 250, 250, "9.1", settings=_openai("gpt-4o-mini")),
    Provider("tts", "Cartesia Sonic Turbo", 40, 40, "1.6", note="fastest"),
    Provider("tts", "ElevenLabs Flash v2.5", 75, 75, "1.6"),
    Provider("tts", "Inworld TTS-1.5-Mini", 130, 130, "1.6", note="<130 ms"),
    Provider("tts", "Inworld TTS-1.5-Max", 250, 250, "1.6", note="<250 ms"),
    Provider("tts", "AWS Polly", 100, 100, "1.6"),
    Provider("tts", "Deepgram Aura-2", 200, 200, "1.6", note="<200 ms"),
    Provider("tts", "OpenAI TTS", 200, 200, "1.6"),
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
