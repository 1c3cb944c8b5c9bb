"""What a step has to do, in the numbers that decide how long any device takes for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.devices import Number

Kind = Literal["encoder", "cnn", "small products"]
"""encoder: products of matrices, attention. cnn: convolutions over all channels. small products: convolutions by
channel or in
narrow blocks, where little is computed for each number that is moved."""

Engine = Literal[
    "tensorrt", "mlperf", "aitemplate", "openvino", "neuron", "xla", "torch.compile", "tensorflow graph", "torch eager"
]

RuntimeClass = Literal["engine", "compiled", "graph", "eager"]

RUNTIME_CLASS: dict[Engine, RuntimeClass] = {
    "tensorrt": "engine",
    "mlperf": "engine",
    "aitemplate": "engine",
    "openvino": "engine",
    "neuron": "engine",
    "xla": "compiled",
    "torch.compile": "compiled",
    "tensorflow graph": "graph",
    "torch eager": "eager",
}
"""How much of a step is planned ahead. An engine is built for one model and device; `mlperf` is one tuned for a
competition."""

BYTES_A_NUMBER: dict[Number, int] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}

TRAINING_PASSES = 3
"""Forward, and backward to inputs and to weights: each costs about a forward pass."""


class Workload(Record):
    """One step of a model, whatever runs it."""

    kind: Kind
    engine: Engine
    phase: Literal["inference", "training"]
    precision: Number
    batch: float = Field(gt=0, description="examples a step, on one device")
    flops_per_example: float = Field(gt=0, description="of the forward pass; a multiplication with its addition is 2")
    parameters: float = Field(ge=0)
    activations_per_example: float = Field(ge=0, description="numbers that layers with products put out")
    products: float = Field(gt=0, description="layers with a product or convolution: what has to be called")
    reads_images: bool = Field(default=False, description="reading and decoding images is part of the measured step")

    @property
    def passes(self) -> int:
        """Forward passes that a step costs as much as."""
        return TRAINING_PASSES if self.phase == "training" else 1

    @property
    def flops(self) -> float:
        """Of a step."""
        return self.flops_per_example * self.batch * self.passes

    @property
    def moved_bytes(self) -> float:
        """Of a step: weights are read once a pass, activations written and read."""
        each = self.parameters + 2 * self.activations_per_example * self.batch
        return each * BYTES_A_NUMBER[self.precision] * self.passes


class Architecture(NamedTuple):
    """What a known architecture consists of."""

    kind: Kind
    parameters: float
    activations: float
    """Numbers an example that its products put out. 0 for encoders: `encoder_activations` has them by length."""
    products: int
    """Layers with weights."""
    layers: int = 0
    width: int = 0
    heads: int = 0


ARCHITECTURES: dict[str, Architecture] = {
    # Parameters and activations: columns param_count and infer_macts of huggingface/pytorch-image-models,
    # results/benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv (Apache-2.0). Products are counted from the
    # papers.
    "ResNet-50 v1.5": Architecture("cnn", 25.56e6, 11.11e6, 54),
    "VGG16": Architecture("cnn", 138.36e6, 13.56e6, 16),
    "InceptionV3": Architecture("cnn", 23.83e6, 8.97e6, 95),
    "DenseNet121": Architecture("small products", 7.98e6, 6.9e6, 121),
    "MobileNetV2": Architecture("small products", 3.5e6, 6.68e6, 53),
    "MobileNetV3-Large": Architecture("small products", 5.48e6, 4.41e6, 64),
    "ConvNeXt-B": Architecture("small products", 88.59e6, 28.75e6, 113),
    "Swin-B": Architecture("encoder", 87.77e6, 36.63e6, 149),
    "ViT-B/16": Architecture("encoder", 86.57e6, 23.9e6, 74),
    "BERT-base": Architecture("encoder", 110e6, 0, 72, layers=12, width=768, heads=12),
    "BERT-large": Architecture("encoder", 335e6, 0, 144, layers=24, width=1024, heads=16),
    "DistilBERT-base": Architecture("encoder", 66e6, 0, 36, layers=6, width=768, heads=12),
}


def encoder_activations(architecture: Architecture, tokens: int) -> float:
    """Numbers that the products of an encoder put out for one text.

    A layer of width h puts out 10 h numbers a token (query, key, value, context, projection, 4 h and h of the
    feed-forward
    part) and a score for each head and pair of tokens.

    Examples:
        >>> round(encoder_activations(ARCHITECTURES["BERT-base"], 197) / 1e6, 1)
        23.7
    """
    a = architecture
    return a.layers * (tokens * a.width * 10 + a.heads * tokens**2)
