"""Integer codes to bytes and back.

TFLite packs sub-byte tensors in row-major order over the whole tensor, the
first element in the lowest bits of a byte, two's complement, with no padding
between rows; the last byte is filled with zeros.
"""

from __future__ import annotations

import numpy as np

CONTAINER_BITS = (2, 4, 8)


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes take in a container of `bits` bits."""
    return -(-count * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packs integer codes into uint8 of `packed_size(codes.size, bits)` bytes.

    Raises:
        ValueError: If a code does not fit, or there is no such container.
    """
    _check_bits(bits)
    flat = np.ascontiguousarray(codes).ravel()
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(
            f"Codes do not fit the container. Expected values in "
            f"[{low}, {high}] for {bits} bits. Received: codes from "
            f"{flat.min()} to {flat.max()}"
        )
    per_byte = 8 // bits
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat.astype(np.int8).view(np.uint8)
    padded &= np.uint8((1 << bits) - 1)
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    lanes = padded.reshape(-1, per_byte) << shifts
    return np.bitwise_or.reduce(lanes, axis=1).astype(np.uint8)


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Inverse of `pack`: `count` codes as int8.

    Raises:
        ValueError: If `data` has another length than `count` codes take.
    """
    _check_bits(bits)
    data = np.asarray(data, np.uint8)
    if data.size != packed_size(count, bits):
        raise ValueError(
            f"Packed data has the wrong length. Expected "
            f"{packed_size(count, bits)} bytes for {count} codes of {bits} "
            f"bits. Received: {data.size} bytes"
        )
    # Shift left so that the sign bit of the code becomes the sign bit of the
    # byte, then arithmetically right.
    shifts = (8 - bits - np.arange(8 // bits) * bits).astype(np.uint8)
    lanes = (data[:, None] << shifts).view(np.int8) >> np.int8(8 - bits)
    return lanes.ravel()[:count].astype(np.int8)


def _check_bits(bits: int) -> None:
    if bits not in CONTAINER_BITS:
        raise ValueError(
            f"No such container. Expected one of {CONTAINER_BITS} bits. "
            f"Received: bits={bits}"
        )
