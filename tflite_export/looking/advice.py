"""Sentences on what stands out among the layers of a file."""

from __future__ import annotations

from collections.abc import Sequence

from msq_tf.page.records import Layer

# Share of a file from which a layer is worth a word, and of its weights that
# lie in containers wider than they need.
_HEAVY, _WASTE = 0.2, 0.05
# Layers that one sentence names.
_NAMED = 4


def of_layers(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Sentences on what to look at, the most bytes first."""
    found = []
    heavy = max(layers, key=lambda layer: layer.stored_bytes, default=None)
    if heavy is not None and (heavy.share or 0.0) >= _HEAVY:
        text = f"{heavy.name} is {heavy.share:.0%} of the file"
        if heavy.next_bits is not None and heavy.next_saves:
            text += (
                f"; at {heavy.next_bits} bits its codes would need "
                f"{heavy.next_saves:,} bytes less"
            )
            if heavy.next_cost is not None:
                text += (
                    ", and the loss is predicted to rise by "
                    f"{heavy.next_cost:.2g}"
                )
        found.append(text)
    stored = sum(layer.stored_bytes for layer in layers)
    waste = stored - sum(layer.ideal_bytes for layer in layers)
    if stored and waste / stored >= _WASTE:
        wide = [x for x in layers if x.stored_bytes > x.ideal_bytes]
        wide.sort(key=lambda x: x.ideal_bytes - x.stored_bytes)
        found.append(
            f"{waste:,} bytes are lost in containers that are wider than the "
            f"codes: {_listed(wide)}. Another target may pack them"
        )
    dead = [layer for layer in layers if layer.dead]
    if dead:
        found.append(
            f"channels without a weight in {_listed(dead)}: they take bytes "
            "and time and compute a constant"
        )
    return tuple(found)


def _listed(layers: Sequence[Layer]) -> str:
    names = ", ".join(layer.name for layer in layers[:_NAMED])
    rest = len(layers) - _NAMED
    return names + (f" and {rest:,} more" if rest > 0 else "")
