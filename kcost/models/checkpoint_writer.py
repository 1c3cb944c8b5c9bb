"""A trained BERT classifier, written as the config and weights that transformers reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
from safetensors.numpy import save_file

from kcost.core.artifact import Task
from kcost.core.errors import ArtifactError, storage
from kcost.models.bert_tensors import CLASSIFIER, EncoderShape, classifier_tensors, encoder_tensors
from kcost.models.checkpoint import ARCHITECTURES, CONFIG_FILE
from kcost.models.safetensors_files import WEIGHTS_FILE

_HIDDEN_ACT = {"gelu": "gelu", "gelu_approximate": "gelu_pytorch_tanh", "relu": "relu"}
"""Name of a Keras function -> transformers' name for it."""


def write_checkpoint(
    model: keras.Model, task: Task, label_names: tuple[str, ...], pad_token_id: int, folder: Path
) -> int:
    """Writes `config.json` and `model.safetensors` into a folder that exists, weights in float32.

    Args:
        model: a classifier of `kcost.models.bert`, with nothing pruned, quantized, fused or added.
        task: the task that it was trained for.
        label_names: the name of each output.
        pad_token_id: id of [PAD].
        folder: takes the two files.

    Returns:
        How many tensors were written.

    Raises:
        ArtifactError: the model is of another kind.
        StorageError: the folder cannot be written to.
    """
    if task not in ARCHITECTURES:
        raise _not_plain(f"a model for {task}")
    weights = {weight.path: weight for weight in model.weights}
    shape, settings = _described(model, weights)
    labels = int(model.get_layer("logits").units)
    if labels != len(label_names):
        raise ArtifactError("Each output of a model has a name.", f"{labels} outputs and {len(label_names)} names")
    tensors = encoder_tensors(shape, pooler=task == "sequence-classification")
    tensors += classifier_tensors(shape.width, labels)
    odd = sorted({tensor.path for tensor in tensors} ^ set(weights))
    if odd:
        raise _not_plain(f"{len(odd)} weights more or fewer, {odd[0]} among them")
    values = {}
    for tensor in tensors:
        name = tensor.name if tensor.name.startswith(CLASSIFIER) else f"bert.{tensor.name}"
        value = keras.ops.convert_to_numpy(keras.ops.cast(weights[tensor.path].value, "float32"))
        values[name] = tensor.from_keras(value)
    config = {
        "architectures": [ARCHITECTURES[task]],
        "model_type": "bert",
        **settings,
        "pad_token_id": pad_token_id,
        "id2label": {str(i): name for i, name in enumerate(label_names)},
        "label2id": {name: i for i, name in enumerate(label_names)},
    }
    with storage(folder):
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(values, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes files that only their owner reads
    return len(values)


def _described(model: keras.Model, weights: dict[str, Any]) -> tuple[EncoderShape, dict[str, Any]]:
    """The sizes of a model's encoder, and its part of config.json."""
    blocks = [layer for layer in model.layers if layer.name.startswith("transformer_layer_")]
    tables = [f"{name}_embedding/embeddings" for name in ("token", "position", "segment")]
    if not blocks or any(type(block).__name__ != "TransformerEncoder" for block in blocks):
        raise _not_plain("a model without encoder layers of keras_nlp")
    if any(path not in weights for path in tables):
        raise _not_plain("a model without BERT's embeddings")
    (vocabulary, width), (positions, _), (segments, _) = (weights[path].shape for path in tables)
    first = blocks[0]
    activation = getattr(first.activation, "__name__", "")
    if activation not in _HIDDEN_ACT:
        raise _not_plain(f"the activation {activation!r}")
    shape = EncoderShape(vocabulary, positions, segments, len(blocks), first.num_heads, width, first.intermediate_dim)
    settings = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner_width,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.segments,
        "hidden_act": _HIDDEN_ACT[activation],
        "layer_norm_eps": first.layer_norm_epsilon,
        "hidden_dropout_prob": first.dropout,
        "attention_probs_dropout_prob": first.dropout,
        "position_embedding_type": "absolute",
    }
    return shape, settings


def _not_plain(received: str) -> ArtifactError:
    return ArtifactError(
        "A Hugging Face folder is written from a BERT that kcost trained, with all its layers as they were.",
        received=received,
        remedy="Give the artifact that `kcost train bert` made, before it was optimized.",
    )
