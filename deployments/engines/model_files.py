"""Check of the user's own model files before anything is started: quick, and without loading the model."""

from __future__ import annotations

import json
from pathlib import Path

from deployments.engines.llm.llama_cpp import chat_template, gguf_file
from deployments.engines.onnx import model_file
from rejoinder.core.errors import ModelError
from rejoinder.store.hub_models import WHISPER_FILES


def check_model_files(field: str, path: Path) -> None:
    """Raise ModelError if the engine that reads the setting `field` cannot load the model at `path`.

    The error says what to do.

    Args:
        field: The setting that names the model, for example "args.llm.model". Only the models of llm, llm_backup, tts
            and stt (`stt.model`) are checked.
        path: The model's file or folder.
    """
    section = field.split(".")[1]
    if section in ("llm", "llm_backup"):
        chat_template(gguf_file(path))
    elif field.endswith("stt.model"):
        whisper_folder(path)
    elif section == "tts":
        voice_config(model_file(path))


def whisper_folder(path: Path) -> Path:
    """Return the faster-whisper folder at `path`, the folder itself or its file model.bin.

    Raises:
        ModelError: A file is missing.
    """
    folder = path.parent if path.name == "model.bin" else path
    missing = [name for name in WHISPER_FILES if not (folder / name).is_file()]
    if not list(folder.glob("vocabulary.*")):
        missing.append("vocabulary.json")
    if missing:
        remedy = "Name a folder with a Whisper model that was converted for CTranslate2 (faster-whisper) in stt.model."
        expected = ", ".join((*WHISPER_FILES, "vocabulary.json or vocabulary.txt"))
        message = f"is not a faster-whisper folder: {', '.join(missing)} is missing."
        raise ModelError(message, remedy, file=str(folder), expected=expected)
    return folder


def voice_config(file: Path) -> dict[str, object]:
    """Return the configuration of a Piper voice, which is beside its network `file`.

    Raises:
        ModelError: It is missing or is not a voice's configuration.
    """
    config_file = file.with_name(f"{file.name}.json")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if not {"audio", "phoneme_id_map", "num_symbols"} <= config.keys():
            raise ValueError("lacks audio, phoneme_id_map or num_symbols")
    except (OSError, ValueError, AttributeError) as error:
        remedy = f"Put the voice's {config_file.name} beside {file.name}, or name another voice in tts.model."
        raise ModelError("is not a Piper voice.", remedy, file=str(config_file), found=repr(error)) from error
    return dict(config)
