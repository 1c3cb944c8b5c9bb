"""Pretrained BERT, read from a Hugging Face folder or a Keras preset folder.

Nothing in a folder is run: settings are read from JSON and checked, weights are read as arrays, and the model is
built from Keras's own layers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import keras
import numpy as np
from keras_nlp.models import BertBackbone
from pydantic import BaseModel, Field, ValidationError

from kcost.core.artifact import Task
from kcost.core.errors import ArtifactError, in_a_line
from kcost.core.schema import describe_validation
from kcost.models.bert import sequence_classifier, token_classifier
from kcost.models.bert_tensors import CLASSIFIER, POOLER, EncoderShape, Tensor, classifier_tensors, encoder_tensors
from kcost.models.safetensors_files import Tensors, open_tensors

CONFIG_FILE = "config.json"
PRESET_WEIGHTS_FILE = "model.weights.h5"

ARCHITECTURES: dict[Task, str] = {
    "token-classification": "BertForTokenClassification",
    "sequence-classification": "BertForSequenceClassification",
}
"""Task -> the class of transformers that has its head."""

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
    "relu": "relu",
}
"""`hidden_act` of a checkpoint -> name of the Keras function; keras_nlp's BERT has `gelu_approximate`, with tanh."""

_BACKBONE_EPSILON = 1e-12
_POSITION_IDS = "embeddings.position_ids"  # 0, 1, 2, ...: older checkpoints store them

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _HuggingFaceConfig(BaseModel):
    """What is read of a Hugging Face config.json; where it may be missing, with transformers' default."""

    model_type: str
    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Count = 2
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-12
    hidden_dropout_prob: Share = 0.1
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    architectures: list[str] | None = None
    problem_type: str | None = None
    id2label: dict[int, str] | None = None

    @property
    def shape(self) -> EncoderShape:
        return EncoderShape(
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
            segments=self.type_vocab_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            width=self.hidden_size,
            inner_width=self.intermediate_size,
        )


class _PresetConfig(BaseModel):
    """What is read of the config of a BertBackbone in a Keras preset."""

    vocabulary_size: Count
    num_layers: Count
    num_heads: Count
    hidden_dim: Count
    intermediate_dim: Count
    dropout: Share = 0.1
    max_sequence_length: Count
    num_segments: Count = 2
    dtype: Any = None

    @property
    def shape(self) -> EncoderShape:
        return EncoderShape(
            vocabulary=self.vocabulary_size,
            positions=self.max_sequence_length,
            segments=self.num_segments,
            layers=self.num_layers,
            heads=self.num_heads,
            width=self.hidden_dim,
            inner_width=self.intermediate_dim,
        )


@dataclass(frozen=True, eq=False)
class Head:
    """The classifier of a fine-tuned checkpoint.

    Attributes:
        task: token-classification or sequence-classification.
        label_names: the name of each output.
        kernel, bias: float32, of shapes (width, labels) and (labels,).
    """

    task: Task
    label_names: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A pretrained encoder.

    Attributes:
        encoder: the layers, inputs and outputs of a keras_nlp BertBackbone, weights in float32.
        max_length: the longest input that it has positions for.
        vocabulary_size: rows of its token table.
        has_pooler: whether the folder had the pooler's weights; without, they are random. A tagger needs none.
        head: the classifier, None where the folder has none that kcost knows.
    """

    encoder: keras.Model
    max_length: int
    vocabulary_size: int
    has_pooler: bool
    head: Head | None


def read_checkpoint(folder: Path | str, *, dropout: float | None = None) -> Checkpoint:
    """Reads a Hugging Face BERT folder, or a Keras preset folder of a BertBackbone.

    A Hugging Face folder holds `config.json` and `model.safetensors` (or its shards); a preset folder `config.json`
    and `model.weights.h5`. Weights of half precision become float32.

    Args:
        folder: the folder; for its tokenizer see `kcost.data.tokenizer_files`.
        dropout: of the encoder in training; None takes that of the folder.

    Raises:
        ArtifactError: it is neither, of another architecture, or its weights do not fit its config.
    """
    folder = Path(folder)
    config = _read_config(folder)
    if "model_type" in config:
        return _from_huggingface(folder, config, dropout)
    if config.get("class_name") == "BertBackbone":
        return _from_preset(folder, config, dropout)
    raise ArtifactError(
        "A checkpoint is a Hugging Face folder of a BERT, or a Keras preset folder of a BertBackbone.",
        received=f"{folder / CONFIG_FILE} of {config.get('class_name') or 'neither'}",
        remedy="Give a folder with a BERT, for example google-bert/bert-base-cased downloaded whole.",
    )


def with_head(checkpoint: Checkpoint, *, dropout: float = 0.1) -> keras.Model:
    """The classifier that a fine-tuned checkpoint is: its encoder with its own head.

    Raises:
        ArtifactError: the checkpoint has no head, or a sequence classifier's pooler is missing.
    """
    head = checkpoint.head
    if head is None or (head.task == "sequence-classification" and not checkpoint.has_pooler):
        raise ArtifactError(
            "A fine-tuned checkpoint holds its classifier, and its pooler where it classifies sequences.",
            received="a checkpoint without them",
            remedy="Train a head on it.",
        )
    build = token_classifier if head.task == "token-classification" else sequence_classifier
    model = build(checkpoint.encoder, len(head.label_names), dropout=dropout)
    model.get_layer("logits").set_weights([head.kernel, head.bias])
    return model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(
            f"A checkpoint is a folder with a {CONFIG_FILE}.",
            received=f"{path}: {reason}",
            remedy="Give the folder that holds config.json, the weights and vocab.txt.",
        ) from error
    return config


def _from_huggingface(folder: Path, raw: dict[str, Any], dropout: float | None) -> Checkpoint:
    _refuse_other_models(folder, raw)
    config = _validated(_HuggingFaceConfig, raw, folder)
    shape = config.shape
    with open_tensors(folder) as tensors:
        names = _plain_names(tensors, folder)
        has_pooler = any(name.startswith(POOLER) for name in names)
        wanted = encoder_tensors(shape, pooler=has_pooler)
        _refuse_misfits(folder, tensors, names, wanted)
        encoder = _encoder(
            shape,
            config.hidden_dropout_prob if dropout is None else dropout,
            _ACTIVATIONS[config.hidden_act],
            config.layer_norm_eps,
        )
        variables = {weight.path: weight for weight in encoder.weights}
        for tensor in wanted:
            variable = variables[tensor.path]
            variable.assign(tensor.to_keras(tensors.read(names[tensor.name]), tuple(variable.shape)))
        head = _head(folder, config, tensors, names)
    return Checkpoint(encoder, shape.positions, shape.vocabulary, has_pooler, head)


def _refuse_other_models(folder: Path, raw: dict[str, Any]) -> None:
    """Refuses what kcost's BERT does not compute."""
    refused = {
        f"model_type {raw.get('model_type')!r}": raw.get("model_type") != "bert",
        f"position_embedding_type {raw.get('position_embedding_type')!r}": raw.get("position_embedding_type")
        not in (None, "absolute"),
        "a decoder": bool(raw.get("is_decoder") or raw.get("add_cross_attention")),
        f"hidden_act {raw.get('hidden_act')!r}": str(raw.get("hidden_act", "gelu")) not in _ACTIVATIONS,
        "quantized weights": "quantization_config" in raw,
    }
    reasons = [what for what, refuse in refused.items() if refuse]
    if reasons:
        raise ArtifactError(
            "A Hugging Face checkpoint is a BERT encoder: model_type bert, absolute positions, and one of the "
            f"activations {', '.join(_ACTIVATIONS)}.",
            received=f"{folder / CONFIG_FILE} with {', '.join(reasons)}",
            remedy="Give a BERT such as google-bert/bert-base-cased. RoBERTa, DistilBERT and others are other models.",
        )


def _plain_names(tensors: Tensors, folder: Path) -> dict[str, str]:
    """Name in the form of `encoder_tensors` -> name in the file. TensorFlow's checkpoints say gamma and beta."""
    names: dict[str, str] = {}
    for name in tensors:
        plain = name.removeprefix("bert.")
        if plain.endswith((".gamma", ".beta")):
            plain = plain.removesuffix(".gamma") + ".weight" if plain.endswith(".gamma") else plain[:-5] + ".bias"
        if plain in names:
            raise _misfit(folder, f"both {names[plain]} and {name}")
        names[plain] = name
    return names


def _refuse_misfits(folder: Path, tensors: Tensors, names: dict[str, str], wanted: tuple[Tensor, ...]) -> None:
    missing = [tensor.name for tensor in wanted if tensor.name not in names]
    if missing:
        raise _misfit(folder, f"{len(missing)} tensors missing, {missing[0]} among them")
    for tensor in wanted:
        shape = tensors.shape(names[tensor.name])
        if shape != tensor.shape:
            raise _misfit(folder, f"{tensor.name} of shape {shape}, where the config says {tensor.shape}")
        if not tensors.is_float(names[tensor.name]):
            raise _misfit(folder, f"{tensor.name} in integers: quantized weights")
    known = {tensor.name for tensor in wanted} | {_POSITION_IDS}
    odd = [name for name in names if name.startswith(("embeddings.", "encoder.", POOLER)) and name not in known]
    if odd:
        raise _misfit(folder, f"{len(odd)} tensors that a BERT of this config has not, {odd[0]} among them")


def _misfit(folder: Path, received: str) -> ArtifactError:
    return ArtifactError(
        f"The weights of a checkpoint are those that its {CONFIG_FILE} describes.",
        received=f"{folder}: {received}",
        remedy="Copy the folder whole again. Adapters (LoRA) are merged into the model before it is saved.",
    )


def _head(folder: Path, config: _HuggingFaceConfig, tensors: Tensors, names: dict[str, str]) -> Head | None:
    """The classifier where the folder has one for a task that kcost knows."""
    tasks = [task for task, name in ARCHITECTURES.items() if name in (config.architectures or ())]
    several = config.problem_type in ("multi_label_classification", "regression")
    if not tasks or several or f"{CLASSIFIER}weight" not in names:
        return None
    count = tensors.shape(names[f"{CLASSIFIER}weight"])[0]
    for tensor in classifier_tensors(config.hidden_size, count):
        if tensor.name not in names or tensors.shape(names[tensor.name]) != tensor.shape:
            raise _misfit(folder, f"{tensor.name} missing or of another shape than {tensor.shape}")
    named = config.id2label or {i: f"LABEL_{i}" for i in range(count)}
    if sorted(named) != list(range(count)) or len(set(named.values())) != count:
        raise ArtifactError(
            "id2label names each output of the classifier once.",
            received=f"{folder / CONFIG_FILE} with {len(named)} labels for {count} outputs, or one name twice",
            remedy="Correct id2label in config.json.",
        )
    kernel, bias = (tensors.read(names[f"{CLASSIFIER}{part}"]) for part in ("weight", "bias"))
    return Head(tasks[0], tuple(named[i] for i in range(count)), np.ascontiguousarray(kernel.T), bias)


def _encoder(shape: EncoderShape, dropout: float, activation: str, epsilon: float) -> keras.Model:
    """An encoder with random weights. keras_nlp's BertBackbone has one activation and one epsilon; others are set."""
    encoder = BertBackbone(
        vocabulary_size=shape.vocabulary,
        num_layers=shape.layers,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        intermediate_dim=shape.inner_width,
        dropout=dropout,
        max_sequence_length=shape.positions,
        num_segments=shape.segments,
        dtype="float32",
    )
    if activation == "gelu_approximate" and epsilon == _BACKBONE_EPSILON:
        return encoder

    def changed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if "layer_norm_epsilon" in config:
            config["layer_norm_epsilon"] = epsilon
            config["activation"] = config["activation"] if activation == "gelu_approximate" else activation
        elif "epsilon" in config:
            config["epsilon"] = epsilon
        return type(layer).from_config(config)

    return keras.models.clone_model(encoder, clone_function=changed)


def _from_preset(folder: Path, raw: dict[str, Any], dropout: float | None) -> Checkpoint:
    config = _validated(_PresetConfig, raw.get("config"), folder)
    if '"quantization_mode"' in json.dumps(config.dtype):
        raise _misfit(folder, "quantized weights")
    encoder = _encoder(
        config.shape, config.dropout if dropout is None else dropout, "gelu_approximate", _BACKBONE_EPSILON
    )
    path = folder / PRESET_WEIGHTS_FILE
    if not path.is_file():
        raise ArtifactError(
            f"A Keras preset folder holds its weights in {PRESET_WEIGHTS_FILE}.",
            received=f"{folder} without it",
            remedy="Write the preset again: backbone.save_to_preset(DIR).",
        )
    try:
        encoder.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:  # h5py and Keras raise many kinds
        raise ArtifactError(
            f"Keras reads the weights of a preset into the BertBackbone of its {CONFIG_FILE}.",
            received=f"{path}: {in_a_line(error)}",
            remedy="The file is damaged, or of another model. Write the preset again: backbone.save_to_preset(DIR).",
        ) from error
    return Checkpoint(encoder, config.max_sequence_length, config.vocabulary_size, True, None)


C = TypeVar("C", _HuggingFaceConfig, _PresetConfig)


def _validated(kind: type[C], raw: object, folder: Path) -> C:
    rule = f"The {CONFIG_FILE} of a checkpoint gives the sizes of a BERT."
    remedy = "The file is damaged or of another model. Copy the folder again."
    try:
        config = kind.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(rule, f"{folder / CONFIG_FILE}: {describe_validation(error)}", remedy) from error
    if config.shape.width % config.shape.heads:
        received = f"a width of {config.shape.width} for {config.shape.heads} attention heads"
        raise ArtifactError(rule, f"{folder / CONFIG_FILE}: {received}", remedy)
    return config
