"""Coordinates of a whole dataset: written once, read by everything that follows."""

from residual.store.base import MemoryStore, Store
from residual.store.damage import Damage, Verified
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.encoding import Allowance

__all__ = ["Allowance", "Damage", "MemoryStore", "ResidualStore", "Store", "Verified", "encode_dataset"]
