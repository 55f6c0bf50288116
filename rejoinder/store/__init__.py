"""The model store: model files by name, verified before use and downloaded only by `rejoinder models pull`.

`deployments`, `cluster`, `loadtest` and `rejoinder.cli` may import it. It imports only `rejoinder.core`. Start reading
at `model_store.py`; `manifest.yaml` lists the models.
"""

from rejoinder.store.manifest import ConversionForm
from rejoinder.store.model_store import ModelStatus, ModelStore, open_store
from rejoinder.store.progress import SILENT, PullProgress

__all__ = ["SILENT", "ConversionForm", "ModelStatus", "ModelStore", "PullProgress", "open_store"]
