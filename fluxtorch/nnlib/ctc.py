"""The connectionist temporal classification loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import tensor

__all__ = ["ctc_loss"]


def ctc_loss(ŷ: Any, y: Any) -> torch.Tensor:
    """The connectionist temporal classification loss of one sequence: a 0-dimensional tensor.

    `ŷ` is `(classes, time)`: scores as they come from a network, to which `logsoftmax` is applied
    here. `y` holds the labels in order, at most one for each time step, as integers from 0. The
    last class is the blank, and no label. Infinite if the labels need more time than there is.

    The gradient has none itself: torch doesn't differentiate this kernel twice.

    Raises `DimensionMismatch` unless `ŷ` is a matrix and `y` a vector, `ValueError` for a label that
    is no class or the blank. Graves et al., 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf.

    >>> ctc_loss([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0], [3.0, 3.0, 2.0]], [0, 1])
    tensor(3.6991)
    """
    x = tensor("ctc_loss", ŷ)
    labels = torch.as_tensor(array(y), device=x.device).detach()
    if x.ndim != 2 or 0 in x.shape or labels.ndim != 1:
        raise DimensionMismatch(
            f"ctc_loss expects a matrix (classes, time) and a vector of labels, and got a {summary(x)} "
            f"and a {summary(labels)}"
        )
    if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise TypeError(f"ctc_loss expects labels that are whole numbers, and got a {summary(labels)}")
    classes = x.shape[0]
    try:
        # The kernel reads whatever memory a wrong label leads to, so it is looked up first, without waiting for a GPU.
        labels = torch.arange(classes - 1, device=x.device)[torch.where(labels < 0, classes, labels).long()]
    except IndexError:
        raise ValueError(
            f"ctc_loss expects labels from 0 to {classes - 2}, as class {classes - 1}, the last, is the blank; "
            f"got {labels.tolist()}"
        ) from None
    # The kernel knows Float32 and Float64 only.
    scores = reversed_axes(x.to(torch.promote_types(x.dtype, torch.float32))).log_softmax(-1)
    time, count = torch.tensor([x.shape[1]]), torch.tensor([labels.numel()])
    return F.ctc_loss(scores[:, None], labels[None], time, count, blank=classes - 1, reduction="sum")
