"""Log-mel energies of machine-like noise, for the autoencoder.

The recordings of ToyADMOS are not at hand. The spectra come from the published
autoencoder itself, which draws everything to the sounds that it was trained
on: a random falling spectrum, reconstructed twice, is one that it knows. Noise
with such a spectrum has random energies in every band and frame, as recorded
noise has them. An anomaly is the same with a hum, knocks or a band too loud.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy.mlperf_tiny.inputs import Inputs

BANDS = 128
FRAMES = 5
# Of the 196 windows of a recording of 10 seconds, every fourth: neighbors share
# most of their frames, and more recordings say more than more windows of each.
_EVERY = 4
WINDOWS = 196 // _EVERY
_FRAMES = 196 + FRAMES - 1
TRAIN, CHOOSE, TEST = 640, 1200, 1600

_Reconstruct = Callable[[np.ndarray], np.ndarray]


def windows(energies: np.ndarray) -> np.ndarray:
    """Rows of five frames each, as the network reads them.

    Args:
        energies: Log-mel energies `(frames, BANDS)` in decibels.

    Returns:
        Windows `(frames - 4, 5 * BANDS)`.
    """
    count = len(energies) - FRAMES + 1
    return np.hstack([energies[at : at + count] for at in range(FRAMES)])


def spectra(
    count: int, reconstruct: _Reconstruct, rng: np.random.Generator
) -> np.ndarray:
    """Spectra `(count, BANDS)` in decibels that the autoencoder knows."""
    across = np.linspace(0.0, 1.0, BANDS)
    start = rng.uniform(-25.0, -5.0, (count, 1))
    fall = rng.uniform(15.0, 40.0, (count, 1))
    found = start - fall * across
    for waves in (1, 2, 5, 11):
        phase = rng.uniform(0.0, 2.0 * np.pi, (count, 1))
        height = rng.normal(0.0, 6.0 / np.sqrt(waves), (count, 1))
        found += height * np.sin(np.pi * waves * across + phase)
    for _ in range(2):
        tiled = np.tile(found, FRAMES).astype(np.float32)
        middle = slice(2 * BANDS, 3 * BANDS)
        found = reconstruct(tiled)[:, middle]
    return found


def recording(
    spectrum: np.ndarray, anomaly: float, rng: np.random.Generator
) -> np.ndarray:
    """Energies of one recording of ten seconds, `(200, BANDS)`.

    Args:
        spectrum: Mean energies in decibels.
        anomaly: How loud what does not belong there is, in decibels; 0 for
            none.
        rng: Where the noise comes from.
    """
    # Wide bands average over more bins of the spectrum than narrow ones.
    bins = 1.2 + 3.0 * np.arange(BANDS) / BANDS
    power = rng.gamma(bins, 1.0 / bins, (_FRAMES, BANDS))
    level = rng.normal(0.0, 1.0) + np.cumsum(rng.normal(0.0, 0.1, _FRAMES))
    loud = np.zeros((_FRAMES, BANDS))
    if anomaly:
        kind = rng.integers(3)
        if kind == 0:  # a hum
            at = rng.integers(8, BANDS, 3)
            loud[:, at] = anomaly
        elif kind == 1:  # knocks
            loud[rng.random(_FRAMES) < 0.1] = anomaly / 2
        else:  # a band
            low = rng.integers(0, BANDS - 24)
            loud[:, low : low + 24] = anomaly / 2
    energies = spectrum + level[:, None] + 10.0 * np.log10(power) + loud
    return energies.astype(np.float32)


def make(reconstruct: _Reconstruct, seed: int = 0) -> Inputs:
    """Recordings, half of them with an anomaly.

    Args:
        reconstruct: The published autoencoder, from windows to windows.
        seed: Of all that is random.
    """
    parts = []
    for count in (TRAIN, CHOOSE, TEST):
        # Each part stays as it is where another one gets longer.
        rng = np.random.default_rng((seed, len(parts)))
        known = spectra(count, reconstruct, rng)
        parts.append(
            np.concatenate(
                [
                    windows(
                        recording(
                            spectrum,
                            rng.uniform(3.0, 25.0) if at % 2 else 0.0,
                            rng,
                        )
                    )[::_EVERY]
                    for at, spectrum in enumerate(known)
                ]
            )
        )
    train, choose, test = parts
    return Inputs(train, choose, test, windows=WINDOWS)
