"""Pictures of handwritten digits for the example programs, as Flux takes them: arrays (W, H, 1, N).

They stand for MLDatasets.MNIST. Without a folder they are scikit-learn's own, 1498 and 299 of 8×8 pixels, which need
no network; with one they are MNIST's.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from fluxtorch import NamedTuple, pad_zeros, upsample_bilinear


def digits(data: str | None = None, split: str = "train", size: tuple[int, int] | None = None) -> NamedTuple:
    """The pictures of one split, "train" or "test", as `nt(features=…, targets=…, split=…)`.

    `features` is Float32, `(W, H, 1, N)`, from 0 for paper to 1 for ink, and `targets` are the N digits. `data` is a
    folder with MNIST's four files, gzipped or not. With a `size`, scikit-learn's pictures get a margin such as
    MNIST's have, and are upsampled to that width and height.

    Raises `FileNotFoundError` if a file is missing, `ValueError` if one isn't what its name says, or `split` is
    something else.
    """
    if split not in ("train", "test"):
        raise ValueError(f'digits have the splits "train" and "test", not {split!r}')
    if data is not None:
        prefix = "train" if split == "train" else "t10k"
        pixels, targets = (idx(find(data, f"{prefix}-{kind}")) for kind in ("images", "labels"))
        if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets):
            raise ValueError(f"{data}: {prefix}-images and {prefix}-labels don't belong together")
        pixels = pixels / 255
    else:
        bunch = load_digits()
        pixels, targets = torch.from_numpy(bunch.images).float() / 16, torch.from_numpy(bunch.target)
        # Their order is that of the people who wrote them; every sixth is for the test, so that it has some of each.
        part = (torch.arange(len(targets)) % 6 == 5) == (split == "test")
        pixels, targets = pixels[part], targets[part]
    # Rows of pixels lie one after another, picture after picture: Julia's (W, H, N), read from the last axis on.
    features = pixels.permute(2, 1, 0).unsqueeze(2)
    if data is None and size is not None:
        features = upsample_bilinear(pad_zeros(features, 1, dims=(0, 1)), size=size)
    return NamedTuple(features=features, targets=targets.long(), split=split)


def find(folder: str, start: str) -> Path:
    """The file of `folder` whose name starts with `start`: it is spelt with a dash or a dot, with .gz or without."""
    found = [path for path in sorted(Path(folder).glob(f"{start}*")) if "ubyte" in path.name]
    if not found:
        raise FileNotFoundError(f"{folder}: no file {start}-idx…-ubyte or {start}-idx…-ubyte.gz is there")
    return found[0]


def idx(path: Path) -> torch.Tensor:
    """The array of bytes in an idx file, its axes as they stand there: two zeros, the type, the sizes, the bytes."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != b"\0\0\x08" or len(content) <= start:
        raise ValueError(f"{path}: not an idx file of bytes")
    sizes = torch.Size(struct.unpack_from(f">{content[3]}I", content, 4))
    if len(content) - start != sizes.numel():
        raise ValueError(f"{path}: {len(content) - start} bytes, where its head says {' × '.join(map(str, sizes))}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(sizes)
