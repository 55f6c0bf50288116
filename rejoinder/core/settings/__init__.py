"""Every setting with its unit, default and range, as frozen pydantic models.

This is the only core package that imports pydantic. Every package may import it. Start reading at `settings.py`, which
defines the root model `Settings`; `serve_file.py` validates a whole `ray_config.yaml`.
"""
