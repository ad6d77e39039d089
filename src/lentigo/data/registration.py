"""Phase correlation of image textures: do two thumbnails show one scene, shifted, zoomed or turned?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lentigo.data.fingerprints import THUMBNAIL_PX

_SIDE_PX = 64
_CHUNK = 256

Images: TypeAlias = NDArray[np.float32]


def texture_spectra(thumbnails: NDArray[np.uint8], zoom: float, pool: ThreadPoolExecutor) -> NDArray[np.float16]:
    """Whitened spectra (N, 64, 33, 2) of the textures: unit phases, whose 16 bits halve 170 MB for 10,000."""

    def whitened(start: int) -> NDArray[np.float16]:
        textures = _texture(thumbnails[start : start + _CHUNK], zoom) * _window()
        spectrum = np.fft.rfft2(textures)
        spectrum /= np.abs(spectrum) + np.float32(1e-9)
        return spectrum.astype(np.complex64).view(np.float32).reshape(*spectrum.shape, 2).astype(np.float16)

    return np.concatenate(list(pool.map(whitened, range(0, len(thumbnails), _CHUNK))))


def correlation_peaks(
    wholes: NDArray[np.float16],
    crops: NDArray[np.float16],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    turn: int,
    pool: ThreadPoolExecutor,
) -> NDArray[np.float32]:
    """Peaks of the phase correlation (n,) of whole images `first` with turned crops `second`, n indices each.

    Kuglin and Hines, The phase correlation image alignment method, 1975: the whitened cross-spectrum of two
    images shifted against each other is a plane wave, whose transform is one peak.
    """

    def correlate(start: int) -> NDArray[np.float32]:
        part = slice(start, start + _CHUNK)
        one, other = (
            spectra[index[part]].astype(np.float32).view(np.complex64)[..., 0]
            for spectra, index in ((wholes, first), (crops, second))
        )
        surface = np.fft.irfft2(one * np.conj(_turn_spectra(other, turn)), s=(_SIDE_PX, _SIDE_PX))
        peaks: NDArray[np.float32] = surface.max(axis=(1, 2)).astype(np.float32)
        return peaks

    parts = list(pool.map(correlate, range(0, len(first), _CHUNK)))
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def block_correlation(thumbnails: NDArray[np.uint8], whole: int, crop: int, zoom: float, turn: int) -> float:
    """Mean correlation of the 4x4 blocks of two textures after registration.

    A peak can come from one dark blob alone; photographs of one lesion agree nearly everywhere.
    """
    one = _texture(thumbnails[[whole]], 1.0)[0]
    other = _turn(_texture(thumbnails[[crop]], zoom), turn)[0]
    spectrum = np.fft.rfft2(one * _window()) * np.conj(np.fft.rfft2(other * _window()))
    surface = np.fft.irfft2(spectrum / (np.abs(spectrum) + np.float32(1e-9)), s=one.shape)
    shift = divmod(int(surface.argmax()), _SIDE_PX)
    a, b = (
        image.reshape(4, 16, 4, 16).swapaxes(1, 2).reshape(16, 256)
        for image in (one, np.roll(other, shift, axis=(0, 1)))
    )
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return float(((a * b).sum(axis=1) / (norms + 1e-6)).mean())


@lru_cache(maxsize=16)
def resampling(zoom: float, size: int) -> NDArray[np.float32]:
    """Matrix (size, 96) that takes the middle `zoom` of a line to `size` pixels, by scaled linear weights."""
    step = THUMBNAIL_PX * zoom / size
    centres = THUMBNAIL_PX * (1 - zoom) / 2 + (np.arange(size) + 0.5) * step
    distance = np.abs(np.arange(THUMBNAIL_PX)[None, :] + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / max(step, 1.0))
    matrix: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _turn(images: Images, turn: int) -> Images:
    """One of the eight flips and quarter turns of (n, side, side)."""
    if turn & 4:
        images = images.transpose(0, 2, 1)
    turned: Images = images[:, :: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    return turned


def _turn_spectra(half: NDArray[np.complex64], turn: int) -> NDArray[np.complex64]:
    """Spectra (n, 64, 33) of turned images, up to a shift by one pixel, which moves the peak and no more."""
    if turn == 0:
        return half
    minus = -np.arange(_SIDE_PX) % _SIDE_PX
    mirrored = np.conj(half[:, minus, _SIDE_PX // 2 - 1 : 0 : -1])
    full = np.concatenate([half, mirrored], axis=2)
    if turn & 4:
        full = full.transpose(0, 2, 1)
    if turn & 2:
        full = full[:, minus]
    if turn & 1:
        full = full[:, :, minus]
    return full[:, :, : _SIDE_PX // 2 + 1]


def _texture(thumbnails: NDArray[np.uint8], zoom: float) -> Images:
    """Centre crops (n, 64, 64) without their slow gradients, at equal local contrast.

    Without this the dark blob in the middle, which all lesions share, decides the correlation.
    """
    sample = resampling(zoom, _SIDE_PX)
    images: Images = sample @ thumbnails.astype(np.float32) @ sample.T
    wide, wider = _blurring(3.0), _blurring(4.0)
    detail: Images = images - np.asarray(wide @ images @ wide.T, np.float32)
    deviation: Images = np.sqrt(wider @ (detail * detail) @ wider.T)
    # 3 of 255 levels: the noise of flat skin is not raised to texture.
    result: Images = detail / (deviation + np.float32(3.0))
    return result


@lru_cache(maxsize=4)
def _blurring(sigma_px: float) -> NDArray[np.float32]:
    """Matrix (64, 64) of a Gaussian blur whose weights are normalised at the border."""
    distance = np.arange(_SIDE_PX)[None, :] - np.arange(_SIDE_PX)[:, None]
    weights = np.exp(-0.5 * (distance / sigma_px) ** 2)
    matrix: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    line = np.hanning(_SIDE_PX + 2)[1:-1]
    window: NDArray[np.float32] = np.outer(line, line).astype(np.float32)
    return window
