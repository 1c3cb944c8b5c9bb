"""The line of an error that says why, as messages of Keras 3.15 and others have it."""

from __future__ import annotations

import pytest

from kcost.core.errors import DataError, first_line, in_a_line

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("too long"), "ValueError: too long"),
        (ValueError("\n  too long \nand more"), "ValueError: too long"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (KeyError("name"), "KeyError: 'name'"),
        (ValueError("'' is no name"), "ValueError: '' is no name"),
        (
            ValueError(f"Exception encountered when calling Dense.call().\n\n{BOLD}a shape (2, 3){PLAIN}\n\nArguments"),
            "ValueError: a shape (2, 3) (in Dense)",
        ),
        (
            TypeError("<class 'Own'> could not be deserialized.\n\nconfig={}.\n\nException encountered: no size given"),
            "TypeError: no size given",
        ),
        (TypeError("config={'a': 1}.\n\nException encountered: "), "TypeError"),
        (
            TypeError(
                "Outer.\n\nconfig={}.\n\nException encountered: Inner.\n\nconfig={}.\n\n"
                f"Exception encountered: Exception encountered when calling X.\n\n{BOLD}no axis 3{PLAIN}"
            ),
            "TypeError: no axis 3 (in X)",
        ),
        (
            TypeError("Unable to revive model from config.\n\nError encountered during deserialization: no 'units'"),
            "TypeError: no 'units'",
        ),
        (TypeError("...\nError encountered:\n\nmissing an argument"), "TypeError: missing an argument"),
        (RuntimeError("compute_output_shape fails. Exception encountered: ''no rank''"), "RuntimeError: no rank"),
        (DataError("A rule.", "what", "Do this."), "DataError: A rule."),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}"),
    ],
)
def test_a_line_says_which_error_and_why(error: Exception, line: str) -> None:
    assert in_a_line(error) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), (" \n\t\n", ""), ("one", "one"), ("\n\n  one \ntwo", "one"), ("one\r\ntwo", "one")],
)
def test_the_first_line_is_the_first_that_is_not_blank(text: str, line: str) -> None:
    assert first_line(text) == line
