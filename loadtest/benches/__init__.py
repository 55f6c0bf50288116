"""Benchmarks of single properties: latency ablation, hedging, barge-in and discarded drafts."""
