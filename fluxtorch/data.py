"""Flux.Data, as it was in Flux 0.10 to 0.13: the `DataLoader`."""

from fluxtorch.mlutils import DataLoader

__all__ = ["DataLoader"]
