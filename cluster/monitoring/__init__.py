"""What watches a running system: Prometheus rules (`alerts.py`) and Grafana dashboards (`dashboards.py`)."""
