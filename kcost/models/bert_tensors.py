"""A BERT's weights under two names: the path of a Keras variable, and the tensor in a Hugging Face checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POOLER = "pooler."
CLASSIFIER = "classifier."


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a BERT encoder."""

    vocabulary: int
    positions: int
    segments: int
    layers: int
    heads: int
    width: int
    inner_width: int


@dataclass(frozen=True)
class Tensor:
    """One weight: its Keras path, its Hugging Face name without `bert.`, and its shape in the checkpoint.

    `transposed`: a dense kernel, which a checkpoint holds as (outputs, inputs) and Keras as (inputs, outputs), with
    the attention heads on an axis of their own.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    transposed: bool = False

    def to_keras(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A checkpoint's tensor as Keras holds it, in `shape`, float32."""
        return np.asarray(value.T if self.transposed else value, dtype=np.float32).reshape(shape)

    def from_keras(self, value: np.ndarray) -> np.ndarray:
        """A Keras variable as a checkpoint holds it: contiguous, float32."""
        value = value.reshape(self.shape[::-1]).T if self.transposed else value.reshape(self.shape)
        return np.ascontiguousarray(value, dtype=np.float32)


def encoder_tensors(shape: EncoderShape, *, pooler: bool) -> tuple[Tensor, ...]:
    """All weights of an encoder of `shape`, with those of its pooler or without."""
    tables = (
        ("token", "word", shape.vocabulary),
        ("position", "position", shape.positions),
        ("segment", "token_type", shape.segments),
    )
    tensors = [
        Tensor(f"{path}_embedding/embeddings", f"embeddings.{name}_embeddings.weight", (rows, shape.width))
        for path, name, rows in tables
    ]
    tensors += _norm("embeddings_layer_norm", "embeddings.LayerNorm", shape.width)
    for i in range(shape.layers):
        tensors += _layer(f"transformer_layer_{i}", f"encoder.layer.{i}", shape.width, shape.inner_width)
    if pooler:
        tensors += _dense("pooled_dense", f"{POOLER}dense", shape.width, shape.width)
    return tuple(tensors)


def classifier_tensors(width: int, labels: int) -> tuple[Tensor, ...]:
    """The weights of a head with `labels` outputs."""
    return tuple(_dense("logits", CLASSIFIER.removesuffix("."), width, labels))


def _layer(path: str, name: str, width: int, inner_width: int) -> list[Tensor]:
    attention = f"{path}/self_attention_layer"
    return [
        *_dense(f"{attention}/query", f"{name}.attention.self.query", width, width),
        *_dense(f"{attention}/key", f"{name}.attention.self.key", width, width),
        *_dense(f"{attention}/value", f"{name}.attention.self.value", width, width),
        *_dense(f"{attention}/attention_output", f"{name}.attention.output.dense", width, width),
        *_norm(f"{path}/self_attention_layer_norm", f"{name}.attention.output.LayerNorm", width),
        *_dense(f"{path}/feedforward_intermediate_dense", f"{name}.intermediate.dense", width, inner_width),
        *_dense(f"{path}/feedforward_output_dense", f"{name}.output.dense", inner_width, width),
        *_norm(f"{path}/feedforward_layer_norm", f"{name}.output.LayerNorm", width),
    ]


def _dense(path: str, name: str, inputs: int, outputs: int) -> list[Tensor]:
    return [
        Tensor(f"{path}/kernel", f"{name}.weight", (outputs, inputs), transposed=True),
        Tensor(f"{path}/bias", f"{name}.bias", (outputs,)),
    ]


def _norm(path: str, name: str, width: int) -> list[Tensor]:
    return [Tensor(f"{path}/gamma", f"{name}.weight", (width,)), Tensor(f"{path}/beta", f"{name}.bias", (width,))]
