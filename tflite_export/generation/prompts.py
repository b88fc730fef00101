"""Token ids of texts to verify a language model with."""

from __future__ import annotations

from typing import Any

import numpy as np


def token_ids(model: Any, data: Any, limit: int, length: int) -> np.ndarray:
    """Token ids, int32 of shape (text, length).

    Texts that are shorter go on with random tokens, so that all positions are
    looked at.

    Args:
        model: A `CausalLM` of KerasHub.
        data: What its `generate` takes, or token ids of shape (text, token);
            `None` for random ones.
        limit: Largest number of texts.
        length: Tokens of each.

    Raises:
        ValueError: If the data is neither, or an id is no token's.
    """
    tokens = int(model.backbone.vocabulary_size)
    rng = np.random.default_rng(0)
    if data is None:
        return rng.integers(0, tokens, (limit, length), np.int32)
    found, known = _given(model, data, length)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not found.size:
        raise ValueError(
            "Texts to verify with are strings, for a model with a "
            "preprocessor, or ids of shape (text, token). Expected integers "
            "of two axes. Received: representative_data of type "
            f"{found.dtype} and shape {found.shape}"
        )
    if found.min() < 0 or found.max() >= tokens:
        raise ValueError(
            "representative_data holds ids of no token. Expected ids from 0 to "
            f"{tokens - 1}. Received: ids from {found.min()} to {found.max()}"
        )
    rows = rng.integers(0, tokens, (min(limit, len(found)), length), np.int32)
    found, known = found[: len(rows), :length], known[: len(rows), :length]
    rows[:, : found.shape[1]] = np.where(
        known, found, rows[:, : found.shape[1]]
    )
    return rows


def _given(model: Any, data: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and which of them are of a text."""
    if not isinstance(data, dict):
        texts = np.asarray(data)
        if texts.dtype.kind not in "USO":
            return texts, np.ones(texts.shape, bool)
        preprocessor = getattr(model, "preprocessor", None)
        if preprocessor is None:
            raise ValueError(
                "The model has no preprocessor that makes tokens of texts. "
                "Expected representative_data of ids, of shape (text, token). "
                f"Received: representative_data of type {texts.dtype}"
            )
        data = preprocessor.generate_preprocess(
            np.atleast_1d(texts).tolist(), sequence_length=length
        )
    ids = np.asarray(data["token_ids"])
    mask = np.asarray(data.get("padding_mask", np.ones_like(ids)), bool)
    return ids, mask
