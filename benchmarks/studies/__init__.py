"""Offline studies of accuracy and latency: run each with `python -m benchmarks.studies.NAME`.

The studies measure real engines on recordings of people, and choose the defaults of several settings. They may import
the product; the product does not import them. Start at `wer_study.py`.
"""
