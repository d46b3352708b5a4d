"""The checkpoint store: one interface (``base``), its backends, and the function that opens one by URL."""

from perdure.stores.base import Store
from perdure.stores.open import open_store

__all__ = ["Store", "open_store"]
