"""What the programs that learn to write share: a text, and a letter drawn by its probability."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def read(data: str | None = None, letters: int = 300_000) -> str:
    """All of the file `data`; without one, the beginning of the language reference that comes with Python.

    That is what `help("assert")` and so on print: 79 chapters and more, one after the other, under Python's licence.
    """
    if data is not None:
        return Path(data).read_text(encoding="utf-8")
    return "\n\n".join(pydoc_data.topics.topics.values())[:letters]


def wsample(items: Sequence[Any], weights: torch.Tensor) -> Any:
    """One of `items`, each as likely as its weight says: what StatsBase.jl calls so."""
    return items[torch.multinomial(weights, 1)]
