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
    _check_ids(found, tokens)
    rows = rng.integers(0, tokens, (min(limit, len(found)), length), np.int32)
    found, known = found[: len(rows), :length], known[: len(rows), :length]
    rows[:, : found.shape[1]] = np.where(
        known, found, rows[:, : found.shape[1]]
    )
    return rows


def translations(
    model: Any, data: Any, limit: int, source: int, length: int
) -> dict[str, np.ndarray]:
    """Texts of a model that reads one and writes another.

    Where they are shorter, random tokens go on with what is written, and the
    mask ends what is read.

    Args:
        model: A `Seq2SeqLM` of KerasHub.
        data: What its `generate` takes; `None` for random texts.
        limit: Largest number of texts.
        source: Tokens of a text that is read.
        length: Tokens of a text that is written.

    Returns:
        `encoder_token_ids`, `encoder_padding_mask` and `decoder_token_ids`,
        int32 of shape (text, token).

    Raises:
        ValueError: If the data is something else, or an id is no token's.
    """
    tokens = int(model.backbone.vocabulary_size)
    rng = np.random.default_rng(0)
    if data is None:
        ends = np.r_[source, rng.integers(1, source + 1, limit)][:limit]
        return {
            "encoder_token_ids": _random(rng, tokens, (limit, source)),
            "encoder_padding_mask": _before(ends, source),
            "decoder_token_ids": _random(rng, tokens, (limit, length)),
        }
    if not isinstance(data, dict) or "encoder_token_ids" not in data:
        preprocessor = getattr(model, "preprocessor", None)
        if preprocessor is None:
            raise ValueError(
                "The model has no preprocessor that makes tokens of texts. "
                "Expected representative_data with the keys "
                "'encoder_token_ids' and 'decoder_token_ids'. Received: "
                f"representative_data of type {type(data).__name__}"
            )
        # Tokenizers take lists, where `fit` takes arrays.
        data = preprocessor.generate_preprocess(
            _listed(data),
            encoder_sequence_length=source,
            decoder_sequence_length=length,
        )
    sides = {}
    for side, count in (("encoder", source), ("decoder", length)):
        ids = np.asarray(data[f"{side}_token_ids"])[:limit, :count]
        mask = np.asarray(data.get(f"{side}_padding_mask", ids >= 0))
        _check_ids(ids, tokens)
        known = np.zeros((len(ids), count), bool)
        known[:, : ids.shape[1]] = mask[:limit, :count]
        rest = count - ids.shape[1]
        sides[side] = np.pad(ids, ((0, 0), (0, rest))), known
    (read, seen), (written, known) = sides["encoder"], sides["decoder"]
    drawn = _random(rng, tokens, written.shape)
    return {
        "encoder_token_ids": read.astype(np.int32),
        "encoder_padding_mask": seen.astype(np.int32),
        "decoder_token_ids": np.where(known, written, drawn).astype(np.int32),
    }


def _listed(texts: Any) -> Any:
    if isinstance(texts, dict):
        return {name: _listed(side) for name, side in texts.items()}
    return np.atleast_1d(np.asarray(texts)).tolist()


def _random(
    rng: np.random.Generator, tokens: int, shape: tuple[int, ...]
) -> np.ndarray:
    return rng.integers(0, tokens, shape, np.int32)


def _before(ends: np.ndarray, length: int) -> np.ndarray:
    """Ones in each row up to its end, int32."""
    return (np.arange(length) < ends[:, np.newaxis]).astype(np.int32)


def _check_ids(found: np.ndarray, tokens: int) -> None:
    """Raises a ValueError unless an array has ids of tokens, in two axes."""
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
