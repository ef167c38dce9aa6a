"""Flux ≥ 0.15: `import fluxtorch.v016 as Flux`.

The recurrent cells and layers have their newer meaning here, `LayerNorm` and `normalise` their newer
formula. Everything else is the same object as at fluxtorch's root.
"""

from typing import Any

import fluxtorch
from fluxtorch.v016 import layernorm, recurrent
from fluxtorch.v016.layernorm import *  # noqa: F403
from fluxtorch.v016.recurrent import *  # noqa: F403

__all__ = list(dict.fromkeys([*fluxtorch.__all__, *layernorm.__all__, *recurrent.__all__]))


def __getattr__(name: str) -> Any:
    return getattr(fluxtorch, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
