"""The models of the stages, as plain classes without Ray. Start at `piper.py` or `stt/whisper.py`.

To add an engine, for example a second text-to-speech engine:

1. Write a class in a module of this package. Its constructor loads the model and raises ModelError for bad files, or
   ConfigError for a bad setting or a missing package. Its methods raise only CallerError (bad input), Overloaded or
   BackendError. It needs these members:
   - text to speech, as in `PiperVoice`: `name`, `warm_up()`, and `synthesize(text, speed)`, a generator of 24 kHz
     16-bit PCM chunks that stops when it is closed;
   - speech to text, the protocol `Recognizer` in `stt/cascade.py`: `name`, `warm_up()`, and `transcribe_batch(clips)`,
     which returns a WhisperResult for each clip;
   - language model, the protocol `LlmEngine` in `deployments/llm.py`: `name`, `prefills`, `stream(request)`,
     `check_health()`.
2. Add its name to the values of `engine` in TtsSettings, SttSettings or LlmSettings
   (`rejoinder/core/settings/stages.py`), and its own settings to the same class. If it runs on a GPU, add its name to
   GPU_ENGINES and DEVICE_ENGINES in `rejoinder/core/settings/devices.py`, and check the GPU with `open_device`
   (`device.py`): other engines may not reserve GPUs.
3. Construct it where the deployment builds its engine: the constructor of `Tts` in `deployments/tts.py` or of `Stt` in
   `deployments/stt.py`, or `open_engine` in `deployments/llm.py`. `Tts` builds `PiperVoice` and `Stt` builds `Whisper`
   without reading `engine`, so the first additional engine needs a branch there. `emulated` is chosen elsewhere for
   these two: `deployments/app.py` deploys EmulatedTts and EmulatedStt instead of Tts and Stt. EmulatedLlm is chosen in
   `open_engine`.
4. Declare its package in `pyproject.toml` (in an extra, if the licence is not permissive), and pin it in
   `constraints.txt`. For an optional package, add a check to `_packages` in `cluster/doctor/examine.py`.
5. If it has weights, add them to `rejoinder/store/manifest.yaml` with licence, files, sizes, SHA-256 and sources, and
   to `needed_models` in `cluster/doctor/examine.py`.
6. Copy a test and adapt it: `tests/deployments/engines/test_piper.py`, `stt/test_whisper.py` or
   `llm/test_openai_api.py` in the same folder.

The engines of the session host and the turn detector, `Silero` and `SmartTurn`, have no setting `engine`: another model
needs a class with the same methods. Deployments, `deployments/local`, `deployments/studies`, `benchmarks` and the
command line import this package. Except for `emulated.py`, it imports no Ray.
"""
