"""Fields of client events that this server knows and cannot honour, and the errors that name them.

The rest of a session.update takes effect, so that one field costs a client nothing else. A response.create with such a
field is refused as a whole: its client must know that the response will not be the requested one.
"""

from __future__ import annotations

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Fields, refuse
from rejoinder.core.wire.session import REALTIME, SEGMENTS, TRANSCRIPTION, WORDS

LOGPROBS = "item.input_audio_transcription.logprobs"
_NOWHERE = ("prompt", "reasoning")
_OF_REPLIES = ("instructions", "tools", "tool_choice", "output_modalities", "max_output_tokens")
"""Fields of a session that concern its replies, so that a transcription session has no use for them."""


def left_out(patch: Fields) -> list[CallerError]:
    """Return an error for each field of a session.update that has no effect here. The other fields take effect.

    Fields that common clients send without being asked (`tracing`, `noise_reduction`, `truncation`) are not among them,
    because some clients end a session at any error.
    """
    found = [_unserved(patch.at(name)) for name in _NOWHERE if patch.raw(name) is not None]
    if LOGPROBS in patch.texts("include", 16):
        found.append(_unserved(patch.at("include")))
    if patch.raw("type") == TRANSCRIPTION:
        found += [_unserved(patch.at(name), TRANSCRIPTION) for name in _OF_REPLIES if patch.raw(name)]
        if patch.child("audio").raw("output"):
            found.append(_unserved(patch.child("audio").at("output"), TRANSCRIPTION))
        return found
    if {WORDS, SEGMENTS} & set(patch.texts("include", 16)):
        found.append(_unserved(patch.at("include"), REALTIME))
    return found


_REMEDIES = {
    "prompt": "Stored prompts are not kept here: send the text as instructions.",
    "reasoning": "Choose the model's effort in the settings of the server.",
    "include": "Log probabilities are not measured, and only a session of type transcription has times of words.",
}


def _unserved(path: str, kind: str = "") -> CallerError:
    """Return the error for the field at `path`. `kind` is the type of session that has no such field; "" for any."""
    where = f" in a session of type {kind}" if kind else ""
    remedy = _REMEDIES.get(path.rpartition(".")[2], "Leave it out.")
    return refuse(f"{path} has no effect{where}.", path, code="unsupported_parameter", remedy=remedy)


def refuse_unserved(fields: Fields) -> None:
    """Raise CallerError if the options of a response.create have `prompt` or `reasoning`, which are not served."""
    for name in _NOWHERE:
        if fields.raw(name) is not None:
            raise _unserved(fields.at(name))
