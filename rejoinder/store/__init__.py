"""The model store: weights by name, verified before use, fetched only by `pull`."""

from rejoinder.store.manifest import Form
from rejoinder.store.model_store import ModelStore, Status, open_store
from rejoinder.store.progress import SILENT, Progress

__all__ = ["SILENT", "Form", "ModelStore", "Progress", "Status", "open_store"]
