"""What transformers says, from a process of its own: it needs torch, which the tests of other backends hide.

transformers_process.py make FOLDER                 small random checkpoints, inputs.npz, NAME.npz, texts.json
transformers_process.py answer MODEL REQUEST OUT    what it gives for a folder's model and tokenizer
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{c}" for c in "abcdefgh"), ".", "é", "the"]
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}
TOKEN, SEQUENCE = "BertForTokenClassification", "BertForSequenceClassification"
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": (TOKEN, {}, {}),
    "tanh": (TOKEN, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "type_vocab_size": 3}, {}),
    "tanh-default-epsilon": (TOKEN, {"hidden_act": "gelu_pytorch_tanh"}, {}),
    "relu": (TOKEN, {"hidden_act": "relu", "layer_norm_eps": 1e-5}, {}),
    "sharded": (TOKEN, {}, {"max_shard_size": "20KB"}),
    "sequence": (SEQUENCE, {}, {}),
    "encoder": ("BertModel", {}, {}),
    "bfloat16": (TOKEN, {}, {}),
}
"""Name -> class of transformers, changes to its config, arguments of save_pretrained."""
LENGTHS = (1, 7, 64)
TEXTS = ("Abc the. ÉÈ", "", "hah beé\tx", "上 a")


def make(folder: Path) -> None:
    import torch
    import transformers

    inputs: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        ids = rng.integers(5, SIZES["vocab_size"], (4, length))
        mask = np.arange(length) < np.maximum(1, [length, length // 2, length - 1, 2])[:, None]
        inputs |= {f"token_ids_{length}": ids, f"padding_mask_{length}": mask.astype(np.int64)}
        inputs[f"segment_ids_{length}"] = rng.integers(0, 2, (4, length))
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]  # arrays by name
    for seed, (name, (kind, changes, save)) in enumerate(VARIANTS.items()):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**{**SIZES, **changes})
        if kind != "BertModel":
            config.id2label, config.label2id = dict(enumerate(LABELS)), {n: i for i, n in enumerate(LABELS)}
        model = getattr(transformers, kind)(config).eval()
        for parameter in model.parameters():  # biases and norms too: a fresh model has ones and zeros there
            torch.nn.init.normal_(parameter, std=0.3)
        if name == "bfloat16":
            model = model.to(torch.bfloat16)
        model.save_pretrained(folder / name, **save)
        vocab = {piece: i for i, piece in enumerate(VOCAB)}
        tokenizer = transformers.BertTokenizer(vocab, do_lower_case=True, strip_accents=False)
        tokenizer.save_pretrained(folder / name)
        np.savez(folder / f"{name}.npz", **_outputs(model.float(), inputs))  # type: ignore[arg-type]
    (folder / "texts.json").write_text(json.dumps([tokenizer(text)["input_ids"] for text in TEXTS]))


def answer(model_folder: Path, request: Path, out: Path) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(model_folder)
    kind = (config.architectures or ["BertModel"])[0]
    auto = {TOKEN: "AutoModelForTokenClassification", SEQUENCE: "AutoModelForSequenceClassification"}
    model, loading_info = getattr(transformers, auto.get(kind, "AutoModel")).from_pretrained(
        model_folder, output_loading_info=True
    )
    question = json.loads(request.read_text())
    with np.load(question["inputs"]) as file:
        np.savez(out, **_outputs(model.eval(), dict(file)))  # type: ignore[arg-type]  # arrays by name
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    answered = {
        "words": [tokenizer(word, add_special_tokens=False)["input_ids"] for word in question["words"]],
        "texts": [tokenizer(text)["input_ids"] for text in question["texts"]],
        "id2label": model.config.id2label,
        "model_max_length": tokenizer.model_max_length,
        "missing": sorted(loading_info["missing_keys"]),
        "unexpected": sorted(loading_info["unexpected_keys"]),
    }
    print(json.dumps(answered))  # noqa: T201 -- the answer


def _outputs(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    outputs = {}
    for name in [n for n in inputs if n.startswith("token_ids")]:
        length = name.rpartition("_")[2]
        with torch.no_grad():
            outputs_of_model = model(
                input_ids=torch.tensor(inputs[name]),
                token_type_ids=torch.tensor(inputs[f"segment_ids_{length}"]),
                attention_mask=torch.tensor(inputs[f"padding_mask_{length}"]),
            )
        if "logits" in outputs_of_model:
            outputs[length] = outputs_of_model.logits.numpy()
        else:
            outputs[length] = outputs_of_model.last_hidden_state.numpy()
            outputs[f"pooled_{length}"] = outputs_of_model.pooler_output.numpy()
    return outputs


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "make":
        make(Path(arguments[0]))
    else:
        answer(*map(Path, arguments))
