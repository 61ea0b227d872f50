"""Randomness as data: a root seed and a path, no global generator anywhere.

``Key(7).child("read", 12)`` names one stream for ever. Streams of different
paths are independent (their 64-bit seeds are BLAKE2b digests of the path).
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

SAMPLE_BLOCK = 64
"""Samples whose noise is drawn together. A chunk that starts at a multiple of
this gets the same numbers whatever its length."""

Part = str | int


class Block(NamedTuple):
    """A run of samples inside one aligned block of noise of `parent`.

    number: of the block; offset: first sample inside it; start, stop: the rows
    of the batch it covers.
    """

    parent: Key
    number: int
    offset: int
    start: int
    stop: int

    @property
    def key(self) -> Key:
        """The stream of the block."""
        return self.parent.child("block", self.number)

    def entropy(self) -> int:
        """The same number as `key.entropy()`, from a hash that is begun once."""
        hashed = self.parent._hash.copy()
        hashed.update(f"\x1f'block'\x1f{self.number}".encode())
        return _whole(hashed)


@dataclass(frozen=True)
class Key:
    """Where randomness comes from: a root seed (an integer) and a path.

    call_id labels one call to a device and is the same when that call is
    tried again. It is no part of the key's identity and changes no number.
    """

    seed: int
    path: tuple[Part, ...] = ()
    call_id: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"Key: seed must be an integer, got {self.seed!r}.")

    def child(self, *parts: Part) -> Key:
        """The key one or more steps further down the path."""
        plain = (p if isinstance(p, str) else operator.index(p) for p in parts)
        return Key(self.seed, (*self.path, *plain))

    def for_call(self, call_id: str) -> Key:
        """The same key, labelled with the call it is used for."""
        return replace(self, call_id=call_id)

    def entropy(self) -> int:
        """A 63-bit integer that depends on the seed and the whole path."""
        return _whole(self._hash)

    @cached_property
    def _hash(self) -> hashlib.blake2b:
        # repr of each part keeps 1 and "1" apart; the separator cannot occur
        # unescaped inside a repr, so ("ab", "c") and ("a", "bc") differ.
        text = "\x1f".join([repr(self.seed), *map(repr, self.path)])
        return hashlib.blake2b(text.encode(), digest_size=8)

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator on `device`, at the start of this stream."""
        return torch.Generator(device=device).manual_seed(self.entropy())

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this stream."""
        return np.random.default_rng(self.entropy())

    def blocks(self, first_sample: int, batch: int) -> Iterator[Block]:
        """The aligned blocks that samples [first, first + batch) fall into."""
        # A numpy integer prints differently and would name another stream.
        row, first_sample = 0, operator.index(first_sample)
        while row < batch:
            index, offset = divmod(first_sample + row, SAMPLE_BLOCK)
            stop = min(batch, row + SAMPLE_BLOCK - offset)
            yield Block(self, index, offset, row, stop)
            row = stop


def _whole(hashed: hashlib.blake2b) -> int:
    return int.from_bytes(hashed.digest(), "little") >> 1
