import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import StorageError
from kcost.ship.server_files import listed, with_models

NAMES = st.sets(st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True))

EDITED = """\
# two servers read this file
model_config_list {
  config {
    name: 'old'
    base_path: "/elsewhere/old"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 2 } }
    version_labels { key: "stable" value: 2 }
  }
  # config { name: "gone" }
}
"""


@given(NAMES, NAMES)
def test_a_name_is_added_once_and_none_is_lost(first: set[str], second: set[str]) -> None:
    one = with_models(None, first)
    both = with_models(one, second)
    assert listed(one) == first
    assert listed(both) == first | second
    assert both.count("config {") == len(first | second)
    assert with_models(both, first) == both
    assert both.count("{") == both.count("}")


def test_what_a_person_wrote_stays() -> None:
    text = with_models(EDITED, ["old", "new"])
    assert listed(EDITED) == {"old"}
    assert listed(text) == {"old", "new"}
    assert text.startswith(EDITED.rstrip()[:-1].rstrip())
    assert text.count("base_path") == 2
    assert text.endswith("  }\n}\n")


def test_another_file_is_not_touched() -> None:
    with pytest.raises(StorageError, match="another form"):
        with_models("platform_config_map { }  # nothing of ours", ["new"])
