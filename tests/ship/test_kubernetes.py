"""The manifests, held to the schemas of Kubernetes that kubernetes-validate carries."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings, strategies as st

from kcost.core.serving import Batching
from kcost.ship.kubernetes import DOCKER, KUBERNETES_VERSION, ServedModel, manifests, memory_mib
from kcost.ship.server_files import COMPOSE, SERVER_ARGUMENTS, batching_config, is_own

BATCHING = Batching(
    allowed_batch_sizes=(1, 8),
    timeout_us=500,
    max_enqueued_batches=4,
    replicas=3,
    threads=4,
    busy_percent=75,
    p99_ms=9.0,
    why="measured",
)


def documents(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.builds(
            ServedModel,
            st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True),
            st.integers(1, 1 << 36),
            st.sampled_from([None, BATCHING]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_each_document_is_of_its_schema(models: list[ServedModel]) -> None:
    made = documents(manifests(models))
    assert set(made) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    for document in made.values():
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_the_schema_check_can_fail() -> None:
    deployment = documents(manifests([ServedModel("digits", 1 << 28, None)]))["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES_VERSION, strict=True)


def test_what_they_say_of_a_measured_model() -> None:
    models = [ServedModel("words", 300 << 20, None), ServedModel("digits", 100 << 20, BATCHING)]
    made = documents(manifests(models))
    container = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "640Mi"}
    assert container["resources"]["requests"] == {"memory": "640Mi", "cpu": "4"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/digits/metadata"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v1/models/digits"
    assert container["args"] == [
        *SERVER_ARGUMENTS,
        "--tensorflow_intra_op_parallelism=4",
        "--tensorflow_inter_op_parallelism=4",
    ]
    scaler = made["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 6)
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert made["Service"]["spec"]["selector"] == labels
    assert made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert scaler["scaleTargetRef"]["name"] == made["Deployment"]["metadata"]["name"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in made["Service"]["spec"]["ports"]} == ports


@given(st.lists(st.integers(1, 1 << 36), min_size=1, max_size=5))
def test_a_pod_has_room_for_what_was_measured_and_half_of_it_more(peaks: list[int]) -> None:
    mib = memory_mib([ServedModel("m", peak, None) for peak in peaks])
    assert mib % 64 == 0
    assert mib - 64 < 1.5 * sum(peaks) / (1 << 20) <= mib


def test_what_was_assumed_says_so() -> None:
    text = manifests([ServedModel("digits", 1 << 28, None)])
    assert re.search(r"# 60%: assumed", text)
    assert "assumed" not in re.findall(r"# \d+%.*", manifests([ServedModel("digits", 1 << 28, BATCHING)]))[0]


def test_a_changed_file_is_seen() -> None:
    for text in (manifests([ServedModel("digits", 1 << 28, None)]), batching_config(2)):
        assert is_own(text)
        assert not is_own(text + "\n")
        assert not is_own(text.replace("2", "3"))
    assert not is_own("")


def test_compose_and_image_start_the_server_alike() -> None:
    service = yaml.safe_load(COMPOSE)["services"]["serving"]
    assert service["command"] == list(SERVER_ARGUMENTS)
    assert f"FROM {service['image']}\n" in DOCKER
