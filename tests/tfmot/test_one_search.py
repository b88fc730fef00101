"""One search at a time on a tf_keras model."""

import pytest

from tests.tfmot.samples import budget
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model


@pytest.mark.slow
def test_two_are_refused_and_one_after_the_other_is_not(data):
    model = new_model()
    searches = [msq.MSQCallback(budget(), data) for _ in range(2)]
    with pytest.raises(ValueError, match=r"Two searches.*Received"):
        fit(model, data, *searches)
    assert int(model.optimizer.iterations.numpy()) == 0
    fit(model, data, searches[0])
    assert msq.ModelView(model).compression >= 8.0
