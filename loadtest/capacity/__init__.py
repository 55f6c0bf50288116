"""Capacity model for `rejoinder plan`, `rejoinder bench capacity` and `rejoinder load concurrency`.

`calibration` reduces load runs to a document. `network_fit` turns it into a network of queues, `turn_network` simulates
that network, `prediction` predicts its latencies, `inversion` finds the replicas that it needs, and `plan` combines the
results. `capacity_rows` compares predictions with measurements, and `concurrency` and `hardware_cells` fill the latency
guide's tables. The command line imports this package. It imports `loadtest.generator`, `loadtest.bandwidth` and the
packages below them. Start at `plan.plan`.
"""
