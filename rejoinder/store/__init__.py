"""The model store: weights by name, verified before use, fetched only by `pull`."""

from rejoinder.store.manifest import ConversionForm
from rejoinder.store.model_store import ModelStatus, ModelStore, open_store
from rejoinder.store.progress import SILENT, PullProgress

__all__ = ["SILENT", "ConversionForm", "ModelStatus", "ModelStore", "PullProgress", "open_store"]
