"""A language model writes the same text with Keras and on LiteRT."""

import numpy as np
import pytest

pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)


@pytest.mark.slow
def test_keras_and_litert_write_the_same(tmp_path, capsys):
    from examples import generate_text

    path = tmp_path / "lm.tflite"
    found = generate_text.main([f"--output={path}"])
    np.testing.assert_array_equal(found["litert"], found["keras"])
    assert len(set(found["bits"].values())) > 1
    assert set(found["bits"].values()) <= {2, 4, 8}
    assert found["report"].file_bytes == path.stat().st_size
    # It knows the text it was trained on.
    assert found["text"].startswith(generate_text.PROMPT + "better than ugly.")
    assert "equal: True" in capsys.readouterr().out
