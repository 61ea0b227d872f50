"""Random numbers by address: the n-th number of a stream without the first n - 1.

A generator gives its numbers in order; a process that may be asked for any
moment of a device's life needs them by place and time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twin.key import Key

Words = npt.NDArray[np.uint64]

_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, ...]:
    """Philox4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key.

    Arrays broadcast; words are held in uint64. Passes BigCrush.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11),
    doi 10.1145/2063384.2063405.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32 & 0xFFFFFFFF)
    for _ in range(_ROUNDS):
        # 32 x 32 bits fit into 64: no product overflows.
        first, second = _MULTIPLY[0] * c0, _MULTIPLY[1] * c2
        c0, c1, c2, c3 = (
            (second >> _HALF) ^ c1 ^ k0,
            second & _LOW,
            (first >> _HALF) ^ c3 ^ k1,
            first & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniforms(
    key: Key, item: npt.ArrayLike, page: npt.ArrayLike, slot: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Two independent uniforms in (0, 1) at address (item, page, slot) of a stream.

    item, slot: integers in [0, 2^32); page: in [0, 2^63); they broadcast.
    """
    item, page, slot = (np.asarray(part).astype(np.uint64) for part in (item, page, slot))
    words = philox((item, page & _LOW, page >> _HALF, slot), key.entropy())
    return _unit(words[0], words[1]), _unit(words[2], words[3])


def _unit(high: Words, low: Words) -> npt.NDArray[np.float64]:
    """The centre of one of 2^52 equal cells of (0, 1): never 0, never 1."""
    bits = (high << np.uint64(20)) | (low >> np.uint64(12))
    return (bits.astype(np.float64) + 0.5) * 2.0**-52
