"""Tree-Ring, our re-implementation of a peer: rings in the spectrum of one channel of the starting noise.

Wen et al., "Tree-Ring Watermarks: Fingerprints for Diffusion Images that are Invisible and Robust" (NeurIPS 2023),
"Tree-Ring Rings": the shifted Fourier transform of the last channel is set, inside a disc of radius 10 on a side of 64
(in proportion on others), to values that are constant along each ring and are those of one drawn Gaussian noise.
Reading: the sum of |F - key|^2 over the disc, over the noise's own variance, has a noncentral chi-squared law without
the mark (the paper's test). It names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf

Float32 = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class TreeRing:
    """The mark under one key, for latents of that shape."""

    key: bytes
    shape: tuple[int, int, int]  # channels, rows, columns

    def __post_init__(self) -> None:
        prf.check_key(self.key)
        if self.shape[1] != self.shape[2]:
            raise ValueError(f"rings need square latents, given {self.shape}")

    @property
    def radius(self) -> int:
        """Of the disc, in steps of frequency."""
        return max(2, 10 * self.shape[1] // 64)

    def _distance(self) -> npt.NDArray[np.float64]:
        side = np.arange(self.shape[1]) - self.shape[1] // 2
        out: npt.NDArray[np.float64] = np.hypot(side[:, None], side[None, :])
        return out

    def disc(self) -> npt.NDArray[np.bool_]:
        """Which frequencies carry the key.  # (rows, columns)"""
        return self._distance() <= self.radius

    def pattern(self) -> Complex:
        """The key in the shifted spectrum, constant along each ring.  # (rows, columns)"""
        seed = int.from_bytes(prf.derive_key(self.key, "tree ring")[:8], "big")
        drawn = np.random.default_rng(seed).standard_normal(self.shape[1:])
        spectrum = np.fft.fftshift(np.fft.fft2(drawn))
        out, distance, middle = spectrum.copy(), self._distance(), self.shape[1] // 2
        for ring in range(self.radius, -1, -1):
            out[distance <= ring] = spectrum[middle, middle + ring]
        return out

    def latents(self, rng: np.random.Generator) -> Float32:
        """Starting noise of one picture.  # (channels, rows, columns)"""
        noise = rng.standard_normal(self.shape, dtype=np.float32)
        spectrum = np.fft.fftshift(np.fft.fft2(noise[-1]))
        inside = self.disc()
        spectrum[inside] = self.pattern()[inside]
        noise[-1] = np.fft.ifft2(np.fft.ifftshift(spectrum)).real.astype(np.float32)
        return noise

    def distance(self, noise: Float32) -> float:
        """Mean |F - key| over the disc: the paper's score, small where the mark is."""
        inside = self.disc()
        spectrum = np.fft.fftshift(np.fft.fft2(noise[-1]))
        return float(np.abs(spectrum - self.pattern())[inside].mean())

    def p_value(self, noise: Float32) -> float:
        """Of the paper's test: P(noncentral chi-squared <= score) with a degree of freedom for each real and imaginary
        part in the disc. Frequencies of a real noise come in conjugate pairs, so they are not as many independent ones,
        and p is not uniform without the mark: compare by `distance` at a threshold measured on unmarked noise."""
        from scipy.stats import ncx2

        inside = self.disc()
        found, key = np.fft.fftshift(np.fft.fft2(noise[-1]))[inside], self.pattern()[inside]
        variance = float((np.abs(found) ** 2).mean()) / 2  # of a real or imaginary part
        score = float((np.abs(found - key) ** 2).sum()) / variance
        shift = float((np.abs(key) ** 2).sum()) / variance
        return float(ncx2.cdf(score, 2 * int(inside.sum()), shift))
