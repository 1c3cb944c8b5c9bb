"""How far a signature may answer from `serving_default`: by nothing, but where the model rounds."""

from __future__ import annotations

import numpy as np
import pytest

from kcost.core.errors import GateError
from kcost.worker.convert.check_serving import ALIKE, _difference

SHARES = np.array([0.5, 0.25, 0.75])
SECOND = np.array([0.0, 1.0, 0.0])


def test_a_model_that_does_not_round_answers_alike() -> None:
    assert _difference("s", "scores", SHARES + ALIKE / 2, SHARES, 0.0) == pytest.approx(ALIKE / 2)
    with pytest.raises(GateError, match=r"a difference of 0.00144"):
        _difference("s", "scores", SHARES + 0.00144 * SECOND, SHARES, 0.0)


def test_a_rounding_that_falls_the_other_way_is_no_other_answer() -> None:
    """Seen of a tagger in dynamic int8, once in six exports: by where its arrays lay in memory."""
    assert _difference("s", "scores", SHARES + 0.00144 * SECOND, SHARES, 0.002) == pytest.approx(0.00144)
    with pytest.raises(GateError, match=r"a difference of 0.1"):
        _difference("s", "scores", SHARES + 0.1 * SECOND, SHARES, 0.002)
