"""Doctests see what `from fluxtorch import *` brings."""

from typing import Any

import pytest
import torch

import fluxtorch


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update({name: getattr(fluxtorch, name) for name in fluxtorch.__all__}, torch=torch)
