"""models.config and monitoring.config, and what a folder without them serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.cost.assumptions import ABOUT
from kcost.serving.config import METRICS_PATH, ModelEntry, read_metrics_path, read_models, versions_in
from kcost.ship.server_files import with_models
from tests.unit.serving.fakes import write_versions


def test_a_folder_of_models_and_a_model(tmp_path: Path) -> None:
    write_versions(tmp_path / "b", 1, 12)
    write_versions(tmp_path / "a", 3)
    (tmp_path / "c" / "draft").mkdir(parents=True)
    (tmp_path / "b" / "13").mkdir()  # no saved_model.pb: an export under way
    (tmp_path / "b" / str(1 << 63)).mkdir()
    assert [entry.name for entry in read_models(tmp_path)] == ["a", "b"]
    assert versions_in(tmp_path / "b") == (1, 12)
    assert [entry.name for entry in read_models(tmp_path / "b")] == ["b"]


def test_what_export_writes_is_read_with_its_paths_in_the_container(tmp_path: Path) -> None:
    write_versions(tmp_path / "digits", 1)
    (tmp_path / "models.config").write_text(with_models(None, ["digits", "tagger"]))
    entries = read_models(tmp_path)
    assert [(e.name, e.base_path) for e in entries] == [(n, tmp_path / n) for n in ("digits", "tagger")]


def test_policies_and_labels(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text(
        """
        # as in TensorFlow Serving's guide
        model_config_list: <
          config { name: 'a' base_path: "x", model_version_policy { specific { versions: 42 versions: 43 } }
                   version_labels { key: 'stable' value: 42 } version_labels { key: 'canary' value: 43 }
                   logging_config { sampling_config { sampling_rate: 0.1 } } }
          config { name: "b" base_path: "y"; model_version_policy: { latest { num_versions: 2 } } }
          config { name: "c" base_path: "z" model_version_policy { all: {} } }
        >
        """
    )
    a, b, c = read_models(tmp_path)
    assert a.labels == {"stable": 42, "canary": 43}
    there = (1, 2, 42, 50)
    assert [entry.wanted(there) for entry in (a, b, c)] == [(42,), (42, 50), there]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "line:column"),
        ('model_config_list { config { nme: "a" } }', "nme"),
        ("", "lists at least one"),
        ('model_config_list { config { name: "a" } }', "lack"),
        ('model_config_list { config { name: "a" base_path: "b" model_platform: "caffe" } }', "caffe"),
        (
            'model_config_list { config { name: "a" base_path: "b" } config { name: "a" base_path: "c" } }',
            "more than once",
        ),
        (
            'model_config_list { config { name: "a" base_path: "b" model_version_policy { all {} latest {} } } }',
            "one of",
        ),
        (
            'model_config_list { config { name: "a" base_path: "b" model_version_policy { specific {} } } }',
            "names versions",
        ),
    ],
)
def test_models_config_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "models.config").write_text(text)
    with pytest.raises(InputError, match=message):
        read_models(tmp_path)


@given(st.binary(max_size=60))
def test_models_config_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "models.config").write_bytes(content)
    with pytest.raises(InputError):
        read_models(folder)


def test_the_path_of_the_metrics(tmp_path: Path) -> None:
    config = tmp_path / "monitoring.config"
    assert read_metrics_path(tmp_path) == METRICS_PATH
    config.write_text('prometheus_config { enable: true, path: "/metrics" }')
    assert read_metrics_path(tmp_path) == "/metrics"
    config.write_text("prometheus_config { enable: true }")
    assert read_metrics_path(tmp_path) == METRICS_PATH
    config.write_text("prometheus_config { enable: false }")
    assert read_metrics_path(tmp_path) is None
    config.write_text('prometheus_config { enable: true path: "metrics" }')
    with pytest.raises(InputError, match="slash"):
        read_metrics_path(tmp_path)


def test_a_budget_says_where_hand_overs_are_counted() -> None:
    assert ABOUT["hand_over_ms"].source.endswith(f" at {METRICS_PATH}")


def test_a_specific_version_that_is_not_there_is_not_wanted() -> None:
    assert ModelEntry(name="m", base_path=Path("m"), policy="specific", versions=(7,)).wanted((1, 2)) == ()
