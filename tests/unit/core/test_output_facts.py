"""What a config says of the outputs of its model, without a framework."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from kcost.core.output_facts import output_facts


def layer(class_name: str, name: str, before: str | None = None, **config: Any) -> dict[str, Any]:
    history = [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}]}]
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": history if before is not None else [],
    }


def functional(outputs: Any, *layers: dict[str, Any], **compiled: Any) -> dict[str, Any]:
    inner = {"name": "model", "layers": list(layers), "output_layers": outputs}
    return {"class_name": "Functional", "config": inner, "compile_config": compiled or None}


def test_the_activation_of_the_last_layer() -> None:
    (facts,) = output_facts(functional(["d", 0, 0], layer("Dense", "d", "x", activation="softmax")))
    assert (facts.name, facts.ending, facts.product, facts.loss) == ("d", "softmax", True, None)


@pytest.mark.parametrize(
    "last",
    [
        layer("Reshape", "last", "d"),
        layer("Activation", "last", "d", activation="linear"),
        layer("Dropout", "last", "d"),
    ],
)
def test_what_only_passes_an_answer_on_is_seen_through(last: dict[str, Any]) -> None:
    config = functional(["last", 0, 0], layer("Dense", "d", "x", activation="sigmoid"), last)
    assert output_facts(config)[0].ending == "sigmoid"


def test_an_operation_is_an_activation_too() -> None:
    config = functional(["s", 0, 0], layer("Dense", "d", "x", activation="linear"), layer("Sigmoid", "s", "d"))
    assert (output_facts(config)[0].ending, output_facts(config)[0].product) == ("sigmoid", False)


def test_a_serialized_activation() -> None:
    given = {"class_name": "function", "config": "softmax"}
    assert output_facts(functional(["d", 0, 0], layer("Dense", "d", activation=given)))[0].ending == "softmax"


def test_pooled_features_are_no_product() -> None:
    config = functional(["p", 0, 0], layer("GlobalAveragePooling2D", "p", "x"))
    assert (output_facts(config)[0].ending, output_facts(config)[0].product) == (None, False)


def test_a_sequential_model_ends_in_its_last_layer_however_deep() -> None:
    inner = {"class_name": "Sequential", "config": {"name": "head", "layers": [layer("Dense", "d", activation="relu")]}}
    outer = {"class_name": "Sequential", "config": {"name": "model", "layers": [layer("Flatten", "f"), inner]}}
    outer["compile_config"] = {"loss": "mse", "metrics": ["mae"]}  # type: ignore[assignment]
    (facts,) = output_facts(outer)
    assert (facts.ending, facts.loss, facts.metrics) == ("relu", "mse", ("mae",))


BOTH = (layer("Dense", "a", "x", activation="softmax"), layer("Dense", "b", "x", activation="linear"))
WITH_LOGITS = {"class_name": "BinaryCrossentropy", "config": {"from_logits": True}}
LIMITED = {"class_name": "BinaryAccuracy", "config": {"threshold": 0.3}}


def test_outputs_in_a_dictionary_stand_in_the_order_of_their_keys() -> None:
    config = functional(
        {"z": ["a", 0, 0], "y": ["b", 0, 0]},
        *BOTH,
        loss={"z": "sparse_categorical_crossentropy", "y": WITH_LOGITS},
        metrics={"y": [LIMITED, "AUC"]},
    )
    y, z = output_facts(config)
    assert (y.name, y.layer, y.loss, y.from_logits, y.threshold) == ("y", "b", "binary_crossentropy", True, 0.3)
    assert y.metrics == ("binary_accuracy", "auc")
    assert (z.name, z.layer, z.loss) == ("z", "a", "sparse_categorical_crossentropy")


def test_losses_in_a_list_are_those_of_the_outputs_in_order() -> None:
    config = functional([["a", 0, 0], ["b", 0, 0]], *BOTH, loss=["mse", None])
    assert [f.loss for f in output_facts(config)] == ["mse", None]


def test_a_loss_that_is_a_function_goes_by_its_name() -> None:
    given = {"class_name": "function", "config": "mean_squared_error"}
    assert output_facts(functional(["b", 0, 0], *BOTH, loss=given))[0].loss == "mean_squared_error"


def test_a_subclassed_model_says_nothing_but_its_loss() -> None:
    config = {"class_name": "Mine", "config": {"name": "mine"}, "compile_config": {"loss": "mse"}}
    assert [f.loss for f in output_facts(config)] == ["mse"]
    assert output_facts({"class_name": "Mine", "config": {"name": "mine"}}) == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "layers", "output_layers", "name", "compile_config", "loss"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_a_config_of_any_form_is_read_without_an_error(config: Any) -> None:
    output_facts(config)
