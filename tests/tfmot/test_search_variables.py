"""Which variables of a model of TFMOT are the search's own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tflite_export import ExportError
from tflite_export.preparation import preconditions


def test_nan_is_meant_in_the_search_alone():
    model = new_model()
    view = msq.ModelView(model)
    own = {id(variable) for variable in view.search_variables}
    assert own < {id(variable) for variable in model.variables}
    assert any(np.isnan(np.asarray(v)).any() for v in view.search_variables)
    preconditions.check_numbers(view, model)
    # Whatever it is called.
    variable = next(v for v in model.variables if id(v) not in own)
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ExportError, match="holds NaN"):
        preconditions.check_numbers(view, model)


def test_a_name_says_nothing():
    model = new_model()
    layer = layers.Dense(2, name="a_msq_b")
    layer.build((None, 3))
    layer.bias.assign([0.0, np.nan])
    view = msq.ModelView(model)
    with pytest.raises(ExportError, match="a_msq_b|bias"):
        preconditions.check_numbers(view, layer)
