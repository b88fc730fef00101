"""What of TensorFlow's warnings an export shows."""

from __future__ import annotations

import logging

import tensorflow as tf

from tflite_export.conversion import converter


def test_warnings_of_collections_are_dropped_and_others_are_not():
    shown = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())
    logger = tf.get_logger()
    logger.addHandler(handler)
    try:
        with converter._without_collections():
            # As `meta_graph` warns.
            logger.warning("Issue encountered when serializing %s.\n%s", 1, 2)
            logger.warning("a graph of %s", "another kind")
        logger.warning("Issue encountered when serializing %s.\n%s", 3, 4)
    finally:
        logger.removeHandler(handler)
    assert shown == [
        "a graph of another kind",
        "Issue encountered when serializing 3.\n4",
    ]
