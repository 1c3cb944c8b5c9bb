"""What an export carries beside `serving_default`: signatures, warm-up requests, and the files of the server."""

import json
import shutil
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from kcost.api.tagging import tag_texts
from kcost.core.artifact import Model, open_model
from kcost.core.errors import ArtifactError, GateError, InputError
from kcost.core.jobs import CONVERT, Job
from kcost.core.pixels import UNIT
from kcost.core.serving import Batching
from kcost.data.tokenize import WordPiece
from kcost.runtimes.prediction_log import WARM_UP_FILE, encode_request, read_requests
from kcost.runtimes.saved_model import SavedModelSession
from kcost.serving.config import read_models
from kcost.ship import convert as convert_module
from kcost.ship.export import export
from kcost.ship.export_report import ExportReport
from kcost.ship.version_labels import labels_of
from kcost.worker.convert.serving_probes import TEXTS, made_up_images, png
from tests.ship.artifacts import PIECES, TAGS, artifact_of, tagger_of
from tests.ship.conftest import RunJob

BATCHING = Batching(
    allowed_batch_sizes=(1, 4, 16),
    timeout_us=250,
    max_enqueued_batches=3,
    replicas=2,
    threads=1,
    busy_percent=70,
    p99_ms=5.0,
    why="For 100 requests a second.",
)


@pytest.fixture(scope="module")
def tagger(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tagger_of(tmp_path_factory.mktemp("tagger") / "artifact", models / "jax" / "bert.keras")


@pytest.fixture(scope="module")
def classifier(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("classifier") / "artifact"
    file = models / "torch" / "cnn.keras"
    return artifact_of(folder, file, task="image-classification", family="cnn", pixels=UNIT)


@pytest.fixture(scope="module")
def tagger_export(
    tagger: Model, warm_jobs: RunJob, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ExportReport]:
    """An export of the tagger: its version's folder, and what was said of it."""
    out = tmp_path_factory.mktemp("tagger-export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "run_job", warm_jobs)
        report = export(tagger, out, "tagger", 1, warm_up_batches=(3,))
    return out / "tagger" / "1", report


def strings(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_a_tagger_takes_texts(tagger_export: tuple[Path, ExportReport]) -> None:
    version, report = tagger_export
    assert [s.signature for s in report.signatures] == ["serving_text"]
    assert report.signatures[0].rows == len(TEXTS) + 1
    assert report.signatures[0].max_abs_difference < 1e-5
    assert report.left_out == ()
    text = "Anna is in Rio " + "a " * 20
    with SavedModelSession(version, signature="serving_text", strings=True) as session:
        answer = session.run({"text": strings([text.encode(), b""])})
    assert answer["words"][0, :4].tolist() == [b"Anna", b"is", b"in", b"Rio"]
    assert answer["spans"][0, :4].tolist() == [[0, 4], [5, 7], [8, 10], [11, 14]]
    assert {tag.decode() for tag in answer["tags"][0]} <= set(TAGS)
    scores = answer["scores"][0]
    assert (scores[:4] >= 1 / len(TAGS)).all()
    assert scores[-1] == 0
    assert answer["tags"][0, -1] == b"O"
    assert set(answer["words"][1]) == set(answer["tags"][1]) == {b""}


def test_a_client_that_cuts_texts_gets_the_same_tags(tagger: Model, tagger_export: tuple[Path, ExportReport]) -> None:
    """Over HTTP, from a server that knows `serving_default` alone."""
    version, _ = tagger_export
    texts = ["Anna is in Rio", "", "a " * 20, TEXTS[7]]
    with SavedModelSession(version, signature=None, strings=True) as session:
        for name in ("serving_default", "serving_text"):
            session.bind(name)
        wanted = session.run_signature("serving_text", {"text": strings([t.encode() for t in texts])})

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
                arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
                logits = session.run_signature("serving_default", arrays)["logits"]
                body = json.dumps({"predictions": logits.tolist()}).encode()
                self.send_response(200 if self.path == "/v1/models/tagger:predict" else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/v1/models"
            tagged = tag_texts(f"{url}/tagger:predict", tagger.keras_file.parent, texts)
            with pytest.raises(InputError, match="status 404"):
                tag_texts(f"{url}/other:predict", tagger.keras_file.parent, texts)
            server.shutdown()
    for row, words in enumerate(tagged):
        count = len(words)
        assert [w.text.encode() for w in words] == wanted["words"][row, :count].tolist()
        assert [[w.start, w.end] for w in words] == wanted["spans"][row, :count].tolist()
        assert [w.tag.encode() for w in words] == wanted["tags"][row, :count].tolist()
        np.testing.assert_allclose([w.score for w in words], wanted["scores"][row, :count], atol=1e-5)
    assert tag_texts(f"{url}/tagger:predict", tagger.keras_file.parent, []) == []


def test_texts_are_tagged_by_a_tagger_alone(classifier: Model) -> None:
    with pytest.raises(ArtifactError, match="image-classification"):
        tag_texts("http://127.0.0.1:1/v1/models/m:predict", classifier.keras_file.parent, ["a"])


def test_a_classifier_takes_files_of_images(classifier: Model, tmp_path: Path, warm: RunJob) -> None:
    report = export(classifier, tmp_path / "out", "digits", 1)
    version = tmp_path / "out" / "digits" / "1"
    assert [s.signature for s in report.signatures] == ["serving_image_bytes"]
    images = made_up_images(3, (12, 12, 1))
    with SavedModelSession(version, signature=None, strings=True) as session:
        for name in ("serving_default", "serving_image_bytes"):
            session.bind(name)
        by_file = session.run_signature("serving_image_bytes", {"image_bytes": strings([png(i) for i in images])})
        by_array = session.run_signature("serving_default", {"images": images.astype(np.float32) / np.float32(255)})
    np.testing.assert_allclose(by_file["probabilities"], by_array["probabilities"], atol=1e-6)


def test_weights_are_stored_once_for_all_signatures(tagger_export: tuple[Path, ExportReport]) -> None:
    version, report = tagger_export
    size = (version / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert report.weights_bytes <= size < report.weights_bytes + 16384


@pytest.mark.parametrize(
    ("about", "what", "reason"),
    [
        ({"task": "image-classification", "pixels": None}, "serving_image_bytes", "does not say how it takes pixels"),
        ({"task": "token-classification"}, "serving_text", "without its tags or its training"),
    ],
)
def test_what_an_artifact_says_too_little_for(
    models: Path, tmp_path: Path, warm: RunJob, about: dict[str, object], what: str, reason: str
) -> None:
    model = artifact_of(tmp_path / "a", models / "torch" / "cnn.keras", family="cnn", **about)
    report = export(model, tmp_path / "out", "m", 1)
    assert [(left_out.what, reason in left_out.reason) for left_out in report.left_out] == [(what, True)]
    assert report.signatures == ()


def test_a_tokenizer_that_no_graph_can_follow_is_left_out(
    tagger: Model, models: Path, tmp_path: Path, warm: RunJob
) -> None:
    folder = tagger.keras_file.parent
    shutil.copytree(folder, tmp_path / "a")
    pieces = WordPiece.from_vocab({piece: i for i, piece in enumerate(PIECES)}, lowercase=True)
    pieces.library_tokenizer.add_tokens(["Rio"])
    pieces.save(tmp_path / "a")
    report = export(open_model(tmp_path / "a"), tmp_path / "out", "m", 1)
    assert report.signatures == ()
    assert "'Rio', which may stand within a word" in report.left_out[0].reason


def test_a_signature_that_answers_otherwise_stops_the_export(
    classifier: Model, tmp_path: Path, warm_jobs: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampering(job: Job, backend: str, request: object, **options: object) -> object:
        if job is not CONVERT:
            return warm_jobs(job, backend, request, **options)
        other = UNIT.model_copy(update={"factor": 0.5})
        serving = request.serving.model_copy(update={"pixels": other})
        return warm_jobs(job, backend, request.model_copy(update={"serving": serving}), **options)

    monkeypatch.setattr(convert_module, "run_job", tampering)
    with pytest.raises(GateError, match="serving_image_bytes answers as serving_default"):
        export(classifier, tmp_path / "out", "digits", 1)
    assert not (tmp_path / "out").exists()


def test_the_warm_up_requests_are_what_tensorflow_reads(tagger_export: tuple[Path, ExportReport]) -> None:
    """By TensorFlow's reader, and by its checksums: a byte that is changed anywhere is seen."""
    version, report = tagger_export
    path = version / WARM_UP_FILE
    assert report.warm_up_batches == (3,)
    requests = read_requests(path)
    assert [(r.model, r.signature) for r in requests] == [("tagger", "serving_default"), ("tagger", "serving_text")]
    assert requests[0].inputs["token_ids"].shape[0] == 3
    assert requests[1].inputs["text"].tolist() == [text.encode() for text in TEXTS[:3]]
    content = path.read_bytes()
    at = 0
    for request in requests:
        length, of_length = struct.unpack_from("<QI", content, at)
        record = content[at + 12 : at + 12 + length]
        (of_record,) = struct.unpack_from("<I", content, at + 12 + length)
        assert of_length == masked(crc32c(content[at : at + 8]))
        assert of_record == masked(crc32c(record))
        assert record == encode_request(request)
        at += 12 + length + 4
    assert at == len(content)


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit. Source: RFC 3720, appendix B.4."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(value: int) -> int:
    """As TFRecord stores it: rotated by 15 bits, and a constant added."""
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_batch_sizes_in_use_are_warmed_up_and_batched(classifier: Model, tmp_path: Path, warm: RunJob) -> None:
    report = export(classifier, tmp_path / "out", "digits", 1, batching=BATCHING)
    assert report.batching == BATCHING
    assert report.warm_up_batches == (1, 4, 8, 16)
    version = tmp_path / "out" / "digits" / "1"
    text = (version / "batching_params.pbtxt").read_text()
    assert "max_batch_size { value: 16 }\nbatch_timeout_micros { value: 250 }\n" in text
    assert text.endswith("allowed_batch_sizes: 1\nallowed_batch_sizes: 4\nallowed_batch_sizes: 16\n")
    scaler = list(yaml.safe_load_all((tmp_path / "out" / "kubernetes.yaml").read_text()))[2]
    assert scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 56


def test_texts_of_free_lengths_are_not_batched(tagger: Model, tmp_path: Path, warm: RunJob) -> None:
    report = export(tagger, tmp_path / "out", "tagger", 1, batching=BATCHING)
    assert report.batching is None
    assert [left_out.what for left_out in report.left_out] == ["batching_params.pbtxt"]
    assert not (tmp_path / "out" / "tagger" / "1" / "batching_params.pbtxt").exists()


def test_versions_with_labels_and_files_that_a_person_changed(classifier: Model, tmp_path: Path, warm: RunJob) -> None:
    out = tmp_path / "out"
    export(classifier, out, "digits", 1)
    export(classifier, out, "digits", 2, labels=["canary"])
    assert read_models(out)[0].wanted((1, 2, 3)) == (1, 2)  # 1 was served before anybody named a version
    shutil.rmtree(out)
    export(classifier, out, "digits", 1, labels=["stable"])
    first = (out / "kubernetes.yaml").read_text()
    export(classifier, out, "digits", 2, labels=["canary"])
    assert labels_of((out / "models.config").read_text(), "digits") == {"stable": 1, "canary": 2}
    assert read_models(out)[0].wanted((1, 2, 3)) == (1, 2)
    second = (out / "kubernetes.yaml").read_text()
    assert second != first  # two versions are loaded
    (out / "kubernetes.yaml").write_text(second + "# mine\n")
    (out / "Dockerfile").write_text("FROM other\n")
    report = export(classifier, out, "digits", 3)
    assert (out / "kubernetes.yaml").read_text() == second + "# mine\n"
    assert (out / "Dockerfile").read_text() == "FROM other\n"
    assert [w.partition(" ")[0] for w in report.warnings] == ["kubernetes.yaml", "models.config"]
    assert "version 3 is not served" in report.warnings[1]


@pytest.mark.parametrize("batches", [(), (0,), (1, -3)])
def test_batch_sizes_are_positive(classifier: Model, tmp_path: Path, batches: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least one row"):
        export(classifier, tmp_path / "out", "digits", 1, warm_up_batches=batches)
    with pytest.raises(InputError, match="label"):
        export(classifier, tmp_path / "out", "digits", 1, labels=["a b"])
    assert not (tmp_path / "out").exists()


def test_a_batch_size_that_no_server_reads_is_refused(classifier: Model, tmp_path: Path, warm: RunJob) -> None:
    with pytest.raises(InputError, match="at most 1000 requests of 268,435,456 bytes"):
        export(classifier, tmp_path / "out", "digits", 1, warm_up_batches=(1, 1 << 20))
    assert not (tmp_path / "out").exists()
