"""The models behind the stages, as plain classes without Ray. Start at `piper.py` or `stt/whisper.py`.

An engine implements the protocol that its deployment calls: `LlmEngine` in `deployments/llm.py`, `Recognizer` in
`stt/cascade.py`, or the methods of the class it replaces (`Silero`, `SmartTurn`, `PiperVoice`). To add one:

1. Write its class in a module of this package. The constructor loads the model and raises ModelError or ConfigError.
   Give it `name` and `warm_up()`. Raise CallerError, Overloaded or BackendError from calls, nothing else.
2. Add its name to `engine` in the stage's settings (`rejoinder/core/settings/stages.py`).
3. Construct it where the stage's deployment opens its engine (for example `open_engine` in `deployments/llm.py`).

Deployments, `deployments/local` and `benchmarks` import this package. Except for `emulated.py`, it imports no Ray.
"""
