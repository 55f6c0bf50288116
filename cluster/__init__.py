"""Launching, checking and planning a Ray cluster that runs Rejoinder.

It may import everything except `rejoinder.cli`; only the command line and tests import it. Start reading at `launch.py`
(`rejoinder serve`), `doctor/examine.py` (`rejoinder doctor`), `description/launch_description.py` and `rendering`
(`rejoinder launch`), or `plan.py` (the files of `rejoinder plan`).
"""
