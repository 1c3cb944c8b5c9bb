from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError, StorageError
from kcost.serving.config import read_models
from kcost.ship.server_files import with_models
from kcost.ship.version_labels import labels_of, served_versions, with_label

LABELS = st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True), st.integers(1, 1 << 40), max_size=4)

EDITED = """\
# one { that is not closed, in a comment
model_config_list: {
  config { name:"old" base_path: '/else{where}/old' model_platform: "tensorflow"
    model_version_policy { specific { versions: 2, versions:3 } }
    version_labels { key: "stable" value: 2 } # ours
  }
  config: {
    name: 'all'
    base_path: "/models/all"
    model_version_policy { all {} }
  }
  config { name: "latest" base_path: "/models/latest" model_version_policy { latest { num_versions: 2 } } }
}
"""


@settings(max_examples=30)
@given(LABELS, LABELS)
def test_each_label_names_its_version_and_each_of_these_is_served(first: dict[str, int], then: dict[str, int]) -> None:
    config = with_models(None, ["one", "other"])
    other = "other"
    for label, version in [*first.items(), *then.items()]:
        config = with_label(config, "one", label, version)
        assert served_versions(config, "one") is not None
    assert labels_of(config, "one") == first | then
    assert labels_of(config, other) == {}
    assert served_versions(config, other) is None
    wanted = {*first.values(), *then.values()}
    assert set(served_versions(config, "one") or ()) == wanted


@given(LABELS)
def test_a_server_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, labels: dict[str, int]) -> None:
    folder = tmp_path_factory.mktemp("models")
    config = with_models(None, ["one", "other"])
    for label, version in labels.items():
        config = with_label(config, "one", label, version)
    (folder / "models.config").write_text(config)
    one, other = read_models(folder)
    assert one.labels == labels
    assert other.labels == {}
    assert one.policy == ("specific" if labels else "latest")
    assert set(labels.values()) == set(one.versions)


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    text = with_label(EDITED, "old", "canary", 4)
    text = with_label(text, "old", "stable", 3)
    text = with_label(text, "all", "stable", 1)
    assert text.startswith("# one { that is not closed, in a comment\nmodel_config_list: {\n")
    assert "'/else{where}/old'" in text
    assert "# ours" in text
    (tmp_path / "models.config").write_text(text)
    old, all_, latest = read_models(tmp_path)
    assert old.labels == {"stable": 3, "canary": 4}
    assert old.versions == (2, 3, 4)
    assert (all_.policy, all_.labels) == ("all", {"stable": 1})
    assert (latest.policy, latest.count, latest.labels) == ("latest", 2, {})


def test_a_policy_that_unloads_a_labelled_version_is_refused() -> None:
    with pytest.raises(StorageError, match="unloads older versions"):
        with_label(EDITED, "latest", "stable", 1)


def test_the_first_label_leaves_what_was_served() -> None:
    config = with_label(with_models(None, ["one"]), "one", "canary", 3, beside=(2,))
    assert served_versions(config, "one") == (2, 3)
    assert served_versions(with_label(config, "one", "stable", 4, beside=(9,)), "one") == (2, 3, 4)


@pytest.mark.parametrize("label", ["", "a b", 'a"', "a/b", "ä"])
def test_a_label_is_a_part_of_a_url(label: str) -> None:
    with pytest.raises(InputError, match="label"):
        with_label(EDITED, "old", label, 1)


@pytest.mark.parametrize(
    "config",
    [
        'model_config_list { config { name: "a" model_version_policy { specific { versions: [1] } } } }',
        'model_config_list { config { name: "a" version_labels { key: "x" } } }',
        'model_config_list { config { name: "a" ',
        'model_config_list { config { name: "b" } }',
        "} {",
        'model_config_list { config { name: "a" version_labels { key: "x" value: one } } }',
    ],
)
def test_other_forms_are_refused(config: str) -> None:
    with pytest.raises(StorageError, match=r"models\.config"):
        with_label(config, "a", "x", 2)


@given(st.text(st.sampled_from("{}\"'# \n:ab1"), max_size=40))
def test_any_text_is_labelled_or_refused(text: str) -> None:
    try:
        with_label(text, "a", "x", 1)
    except StorageError:
        return
