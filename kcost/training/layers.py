"""Which layers of a model learn, and how deep each lies."""

from __future__ import annotations

import keras

from kcost.core.errors import InputError
from kcost.core.request import TrainRequest
from kcost.models.keras_private import inner_layers, layers_of

EMBEDDINGS = ("token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm")
ENCODER_LAYER = "transformer_layer_"
HEAD = ("head_dropout", "logits", "probabilities", "dropout", "pooled_dense")
ATTENTION_TARGETS = ("query", "value")
"""Where low-rank updates go: Hu et al. (2021), LoRA, section 4.2, adapt the query and value projections."""


def depth_of_layers(model: keras.Model) -> dict[str, int]:
    """Layer name -> depth: embeddings 0, encoder layer i at i + 1, the head deepest.

    Models of another kind count their layers with weights, from the input on.
    """
    names = [layer.name for layer in model.layers]
    encoder = [name for name in names if name.startswith(ENCODER_LAYER)]
    depths: dict[str, int] = {}
    if encoder:
        for name in names:
            if name.startswith(ENCODER_LAYER):
                depths[name] = int(name.removeprefix(ENCODER_LAYER)) + 1
            else:
                depths[name] = 0 if name in EMBEDDINGS else len(encoder) + 1
        return depths
    depth = -1
    for layer in model.layers:
        depth += bool(layer.weights)
        depths[layer.name] = max(0, depth)
    return depths


def choose_trainable(model: keras.Model, request: TrainRequest) -> tuple[str, ...]:
    """Freezes layers, or adds low-rank updates, as a request says; returns what was changed, for the record.

    Raises:
        InputError: the model has not what is to be frozen or adapted, or the rank is larger than the projections.
    """
    changed: list[str] = []
    if request.freeze != "none" or request.freeze_layers:
        changed.append(_freeze(model, request))
    if request.lora_rank is not None:
        changed.append(_adapt(model, request.lora_rank))
    return tuple(changed)


def _freeze(model: keras.Model, request: TrainRequest) -> str:
    names = [layer.name for layer in model.layers if layer.weights]
    depths = depth_of_layers(model)
    if request.freeze == "backbone":
        frozen = [name for name in names if name not in HEAD]
    else:
        if not any(name in EMBEDDINGS for name in names):
            raise InputError(
                "Embeddings and encoder layers are frozen in a bert.",
                received=f"{model.name}, with layers {', '.join(names)}",
                remedy="Use --freeze backbone for other models.",
            )
        encoders = sum(name.startswith(ENCODER_LAYER) for name in names)
        if request.freeze_layers > encoders:
            raise InputError(f"The encoder has {encoders} layers to freeze.", received=request.freeze_layers)
        # Layers below a frozen one are frozen as well: `--freeze-layers 2` means embeddings and two layers.
        frozen = [name for name in names if depths[name] <= request.freeze_layers]
    for name in frozen:
        model.get_layer(name).trainable = False
    return f"frozen: {', '.join(frozen)}"


def _adapt(model: keras.Model, rank: int) -> str:
    targets = [
        layer
        for layer in layers_of(model, itself=False)
        if layer.name in ATTENTION_TARGETS and hasattr(layer, "enable_lora")
    ]
    if not targets:
        raise InputError(
            "Low-rank updates go to the query and value projections of attention.",
            received=f"{model.name}, which has none",
            remedy="Leave --lora-rank out.",
        )
    width = min(layer.kernel.shape[0] for layer in targets)
    if rank > width:
        raise InputError(
            "A low-rank update has a rank up to the width of its projection.",
            received=f"--lora-rank {rank} for a width of {width}",
            remedy="Give a small one, such as 8.",
        )
    for layer in model.layers:
        if layer.name not in HEAD:
            for inner in layers_of(layer):
                if inner not in targets and not inner_layers(inner):
                    inner.trainable = False
    for layer in targets:
        layer.enable_lora(rank)
    return f"low-rank updates of rank {rank}: {len(targets)} projections; all else but the head is frozen"
