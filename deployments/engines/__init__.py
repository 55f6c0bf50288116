"""The models behind the stages, each a plain class without Ray. Start at `piper.py` or `stt/whisper.py` for an
example.
"""
