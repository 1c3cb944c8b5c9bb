"""The probabilities of an exported model at a temperature, on the test split, against the maths of the risk report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kcost
from kcost import data
from kcost.core.predictions import log_probabilities_of, read_predictions
from kcost.core.process import installed
from kcost.risk.calibration import at_temperature, calibration
from kcost.runtimes.saved_model import SavedModelSession


@pytest.mark.slow
@pytest.mark.skipif(not (installed("torch") and installed("tensorflow")), reason="needs kcost[torch,tensorflow]")
def test_a_saved_model_has_the_calibration_that_the_report_promises(tmp_path: Path) -> None:
    model = tmp_path / "m"
    kcost.train("cnn", "digits", model, backend="torch", epochs=3, limit=300)
    report = kcost.assess_risk(model, backend="torch", limit=300)
    exported = kcost.export(model, tmp_path / "serving", name="digits", calibrated=True)
    assert exported.temperature == report.temperature.value
    assert [y.name for y in exported.outputs] == ["probabilities"], "the name that clients know"
    test = data.load("digits", limit=300).splits["test"]
    assert isinstance(test, data.Images)
    with SavedModelSession(tmp_path / "serving" / "digits" / "1") as session:
        probabilities = session.run({"images": test.x})["probabilities"]
    assert report.answer is not None
    stored = read_predictions(model / "risk" / "predictions-torch.npz").splits["test"]
    expected = at_temperature(stored, report.temperature.value)
    # torch's logits against TensorFlow's, times some 10 where the temperature is 0.1.
    np.testing.assert_allclose(probabilities, np.exp(expected.log_probabilities), atol=1e-3)
    said = log_probabilities_of(report.answer, probabilities)
    served = type(stored)(stored.labels, said.argmax(1), said, stored.rows, stored.examples)
    error = calibration(served, report.unit).error
    assert error.value == pytest.approx(report.calibration_at_temperature.error.value, abs=2e-3)
    assert report.calibration.error.low > error.high, "such a short training is far too doubtful of itself"
    assert (said.argmax(1) == stored.predicted).mean() > 0.995
