"""Offline comparisons and studies that are not part of the installed product. Run them from a checkout."""
