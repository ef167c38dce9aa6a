"""Flux ≥ 0.15: `import fluxtorch.v016 as Flux`.

The recurrent cells and layers have their newer meaning here, `LayerNorm` and `normalise` their newer
formula. Everything else is the same object as at fluxtorch's root.
"""

from typing import Any

import fluxtorch
from fluxtorch.layers import normalise016, recurrent016
from fluxtorch.layers.normalise016 import *  # noqa: F403
from fluxtorch.layers.recurrent016 import *  # noqa: F403

__all__ = list(dict.fromkeys([*fluxtorch.__all__, *normalise016.__all__, *recurrent016.__all__]))


def __getattr__(name: str) -> Any:
    return getattr(fluxtorch, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
