"""The exceptions that Flux raises, under Julia's names."""

from __future__ import annotations

__all__ = ["DimensionMismatch", "DomainError"]


class DimensionMismatch(ValueError):
    """Arrays whose sizes don't fit each other or the layer that they were given to.

    >>> raise DimensionMismatch("layer Dense(3 => 2) expects size(input, 0) == 3, but got 4-element tensor")
    Traceback (most recent call last):
        ...
    fluxtorch.errors.DimensionMismatch: layer Dense(3 => 2) expects size(input, 0) == 3, but got 4-element tensor
    """


class DomainError(ArithmeticError):
    """A value outside the domain of a function, such as a loss that is NaN.

    >>> raise DomainError("Loss is nan on data item 0, stopping training")
    Traceback (most recent call last):
        ...
    fluxtorch.errors.DomainError: Loss is nan on data item 0, stopping training
    """
