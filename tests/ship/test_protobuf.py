import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import ArtifactError
from kcost.runtimes import meta_graph
from kcost.runtimes.protobuf import encode, fields, signed

NUMBERS = st.integers(1, (1 << 29) - 1)
VALUES = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=300))


@given(st.lists(st.tuples(NUMBERS, VALUES)))
def test_what_is_encoded_is_read_back(message: list[tuple[int, int | bytes]]) -> None:
    read = list(fields(b"".join(encode(number, value) for number, value in message)))
    assert [(n, signed(v) if isinstance(v, int) else bytes(v)) for n, v in read] == message


@given(st.lists(st.tuples(NUMBERS, VALUES), min_size=1), st.data())
def test_a_message_cut_within_a_field_is_none(message: list[tuple[int, int | bytes]], data: st.DataObject) -> None:
    last = encode(*message[-1])
    whole = b"".join(encode(number, value) for number, value in message)
    cut = data.draw(st.integers(1, len(last) - 1))
    with pytest.raises(ValueError):  # noqa: PT011  # which of the three depends on where it is cut
        list(fields(whole[:-cut]))


@given(st.binary())
def test_any_bytes_are_fields_or_a_value_error(content: bytes) -> None:
    try:
        read = list(fields(content))
    except ValueError:
        return
    assert all(number >= 1 for number, _ in read)


@given(st.binary())
def test_any_bytes_are_a_meta_graph_or_an_artifact_error(content: bytes) -> None:
    try:
        parsed = meta_graph.parse(encode(5, encode(1, b"key") + encode(2, encode(1, content))) + encode(2, content))
    except ArtifactError:
        return
    assert set(parsed.signatures) == {"key"}


@pytest.mark.parametrize(
    ("hexadecimal", "expected"),
    [
        ("08 96 01", [(1, 150)]),  # the two examples of the encoding's guide
        ("12 07 74 65 73 74 69 6e 67", [(2, b"testing")]),
        ("1d 01 00 00 00", [(3, 1)]),
        ("21 02 00 00 00 00 00 00 00", [(4, 2)]),
    ],
)
def test_known_messages(hexadecimal: str, expected: list[tuple[int, int | bytes]]) -> None:
    assert [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields(bytes.fromhex(hexadecimal))] == expected


@pytest.mark.parametrize("hexadecimal", ["03", "00 01", "08 ff ff ff ff ff ff ff ff ff ff 01", "0b"])
def test_no_messages(hexadecimal: str) -> None:
    with pytest.raises(ValueError, match="Received"):
        list(fields(bytes.fromhex(hexadecimal)))


def test_xla_operations_are_found_in_nodes_and_functions() -> None:
    node = encode(2, b"XlaCallModule")
    compiled = encode(5, encode(1, b"_XlaMustCompile") + encode(2, encode(5, 1)))
    denied = encode(5, encode(1, b"_XlaMustCompile") + encode(2, encode(5, 0)))
    harmless = encode(2, b"MatMul")

    def xla_in(graph: bytes) -> tuple[str, ...]:
        return meta_graph.parse(encode(2, graph)).xla

    assert xla_in(encode(1, node)) == ("the operation XlaCallModule",)
    assert xla_in(encode(2, encode(1, encode(3, node)))) == ("the operation XlaCallModule",)
    assert xla_in(encode(1, harmless + compiled)) == ("a call compiled with jit_compile=True",)
    assert xla_in(encode(2, encode(1, compiled))) == ("a function compiled with jit_compile=True",)
    assert xla_in(encode(1, harmless + denied) + encode(2, encode(1, denied + encode(3, harmless)))) == ()
