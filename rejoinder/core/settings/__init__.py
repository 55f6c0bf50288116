"""Every setting with its unit, default and range, as frozen models. The only core package that imports pydantic.

Start at `settings.py`, the root; `serve_file.py` reads `ray_config.yaml`.
"""
