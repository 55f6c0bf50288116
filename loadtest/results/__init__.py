"""Results of a load run as values: turn records, merged histograms, and the run's JSON document.

The package imports only `rejoinder.core`; every other `loadtest` package may import it. Start at `result.py` for the
JSON of `rejoinder load run`, and at `turn_record.py` for the JSON of `rejoinder talk`.
"""
