"""Gaussian Shading, our re-implementation of a peer: a fixed keystream over repeated message bits in the noise.

Yang et al., "Gaussian Shading: Provable Performance-Lossless Image Watermarking for Diffusion Models" (CVPR 2024).
The message, channels/f_c x rows/f_hw x columns/f_hw bits, is repeated f_c f_hw^2 times over the latent and encrypted by
a stream cipher; each bit picks the half of the normal law that its value is drawn from (l = 1). Reading: signs of the
inverted noise, decrypted, majority of the copies. One key and nonce for all pictures of a user, as in the paper's
code; f_c = 1, f_hw = 8 as in the paper, which is 256 bits in 4 x 64 x 64 and 64 in 4 x 32 x 32. A tie reads 0.
The test of the paper: matching bits against a binomial law.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats

Bits = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GaussianShading:
    """The mark under one key, for latents of that shape."""

    key: bytes
    shape: tuple[int, int, int]  # channels, rows, columns
    block: int = 8  # f_hw

    def __post_init__(self) -> None:
        prf.check_key(self.key)
        if self.shape[1] % self.block or self.shape[2] % self.block:
            raise ValueError(f"latents of {self.shape} are no multiple of blocks of {self.block}")

    @property
    def bits(self) -> int:
        """Of a message."""
        return self.shape[0] * self.shape[1] * self.shape[2] // self.block**2

    def _stream(self) -> Bits:
        size = int(np.prod(self.shape))
        packed = prf.keystream(prf.derive_key(self.key, "gaussian shading"), -(-size // 8))
        return np.unpackbits(packed, count=size).reshape(self.shape)

    def latents(self, message: Bits, rng: np.random.Generator) -> Float32:
        """Starting noise of one picture.  # (bits,) -> (channels, rows, columns)"""
        coarse = message.reshape(self.shape[0], self.shape[1] // self.block, self.shape[2] // self.block)
        spread = coarse.repeat(self.block, axis=1).repeat(self.block, axis=2)
        sizes = np.abs(rng.standard_normal(self.shape, dtype=np.float32))
        return np.where(spread ^ self._stream(), sizes, -sizes).astype(np.float32)

    def votes(self, noise: Float32) -> Bits:
        """How many copies of each bit read 1.  # (channels, rows, columns) -> (bits,)"""
        bits = (noise > 0).astype(np.uint8) ^ self._stream()
        channels, rows, columns = self.shape
        blocks = bits.reshape(channels, rows // self.block, self.block, columns // self.block, self.block)
        out: Bits = blocks.sum(axis=(2, 4), dtype=np.int64).astype(np.uint8).reshape(-1)
        return out

    def decided(self, votes: Bits) -> Bits:
        """The message bits of these votes."""
        return (2 * votes.astype(np.int64) > self.block**2).astype(np.uint8)

    def read(self, noise: Float32) -> Bits:
        """The message bits.  # (channels, rows, columns) -> (bits,)"""
        return self.decided(self.votes(noise))

    def log2_p(self, read: Bits, message: Bits) -> float:
        """log2 of the chance that as many bits match without the mark."""
        matches = int((read == message).sum())
        return stats.binomial_tail(matches, self.bits, Fraction(1, 2)).log2_p
