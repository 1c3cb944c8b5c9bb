"""Labels of versions in a models.config that a person may have written: text in, text out, comments kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from kcost.core.errors import InputError, StorageError

_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}]|[^\s{}"'#,;]+""")
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")


class _Field(NamedTuple):
    """A field of a message in text form."""

    name: str
    start: int
    """Of its name."""
    inside: int
    """Behind its brace, or the start of its value."""
    end: int
    """Of what is inside: its closing brace, or the end of its value."""

    def text_in(self, text: str) -> str:
        """What is inside."""
        return text[self.inside : self.end]


def refuse_label(label: str) -> None:
    """Raises InputError for a label of another form than URLs have."""
    if _LABEL.fullmatch(label) is None:
        raise InputError(
            "A version's label is made of letters, digits, `_`, `-` and `.`.",
            received=repr(label),
            remedy="It is a part of the URL: /v1/models/NAME/labels/LABEL:predict",
        )


def labels_of(config: str, name: str) -> dict[str, int]:
    """The version of each label of a model; none where the model is not listed."""
    model = _model(config, name)
    return {} if model is None else _labels(config, model)


def served_versions(config: str, name: str) -> tuple[int, ...] | None:
    """The versions that a model's policy lists, ascending; None where it lists none: the latest, or all."""
    model = _model(config, name)
    policy = None if model is None else _only(config, model, "model_version_policy")
    specific = None if policy is None else _only(config, policy, "specific")
    if specific is None:
        return None
    return tuple(sorted(_number(f.text_in(config)) for f in _fields(config, specific) if f.name == "versions"))


def with_label(config: str, name: str, label: str, version: int, beside: Collection[int] = ()) -> str:
    """A models.config in which a label of a listed model names that version, which is served beside the others.

    A policy that lists versions lists this one too. Where there is no policy, one is written that lists the labelled
    versions: the default, the latest alone, would unload the others.

    Args:
        beside: versions that such a new policy lists as well: those that were served without one.

    Raises:
        InputError: a label of another form.
        StorageError: the policy is `latest`, which does not keep a labelled version, or the file has another form.
    """
    refuse_label(label)
    model = _model(config, name)
    if model is None:
        raise _other_form(f"no model {name!r}")
    entry = f'version_labels {{ key: "{label}" value: {version} }}'
    there = next((f for f in _labels_fields(config, model) if _label(config, f)[0] == label), None)
    if there is not None:
        return _with_served(config[: there.start] + entry + config[there.end + 1 :], name, version, beside)
    return _with_served(_inserted(config, model, entry), name, version, beside)


def _with_served(config: str, name: str, version: int, beside: Collection[int]) -> str:
    model = _model(config, name)
    assert model is not None  # it was there a moment ago
    wanted = {version, *_labels(config, model).values()}
    policy = _only(config, model, "model_version_policy")
    if policy is None:
        listed = " ".join(f"versions: {v}" for v in sorted(wanted.union(beside)))
        return _inserted(config, model, f"model_version_policy {{ specific {{ {listed} }} }}")
    specific = _only(config, policy, "specific")
    if specific is not None:
        listed_before = {_number(f.text_in(config)) for f in _fields(config, specific) if f.name == "versions"}
        more = " ".join(f"versions: {v}" for v in sorted(wanted - listed_before))
        return config[: specific.end].rstrip() + (f" {more} " if more else " ") + config[specific.end :]
    if _only(config, policy, "all") is None:
        raise StorageError(
            "A labelled version is served as long as its label names it.",
            received=f"the policy {' '.join(policy.text_in(config).split())} of {name!r}, which unloads older versions",
            remedy="Remove model_version_policy, so that kcost lists the labelled versions, or make it `all {}`.",
        )
    return config


def _inserted(config: str, model: _Field, line: str) -> str:
    """The text with a line at the end of a message."""
    head = config[: model.end].rstrip()
    return f"{head}\n    {line}\n  {config[model.end :]}"


def _labels(config: str, model: _Field) -> dict[str, int]:
    return dict(_label(config, field) for field in _labels_fields(config, model))


def _labels_fields(config: str, model: _Field) -> list[_Field]:
    return [field for field in _fields(config, model) if field.name == "version_labels"]


def _label(config: str, field: _Field) -> tuple[str, int]:
    key, value = _only(config, field, "key"), _only(config, field, "value")
    if key is None or value is None:
        raise _other_form("a label without key and value")
    return key.text_in(config).strip("\"'"), _number(value.text_in(config))


def _model(config: str, name: str) -> _Field | None:
    whole = _Field("", 0, 0, len(config))
    for models in _fields(config, whole):
        for model in _fields(config, models) if models.name == "model_config_list" else ():
            named = _only(config, model, "name")
            if model.name == "config" and named is not None and named.text_in(config).strip("\"'") == name:
                return model
    return None


def _only(config: str, parent: _Field, name: str) -> _Field | None:
    return next((field for field in _fields(config, parent) if field.name == name), None)


def _fields(config: str, parent: _Field) -> Iterator[_Field]:
    """The fields directly inside a message."""
    tokens = [t for t in _TOKEN.finditer(config, parent.inside, parent.end) if not t.group().startswith("#")]
    at = 0
    while at < len(tokens):
        name = tokens[at]
        at += 1
        key, colon, value = name.group().partition(":")
        if colon and value:  # name:value, without white space
            yield _Field(key, name.start(), name.start() + len(key) + 1, name.end())
            continue
        if at < len(tokens) and tokens[at].group() == ":":
            at += 1
        if at == len(tokens) or not re.fullmatch(r"\w+", key):
            raise _other_form(f"{name.group()!r} where a field and its value stand")
        if tokens[at].group() != "{":
            yield _Field(key, name.start(), tokens[at].start(), tokens[at].end())
            at += 1
            continue
        inside, depth = tokens[at].end(), 0
        while at < len(tokens):
            depth += {"{": 1, "}": -1}.get(tokens[at].group(), 0)
            at += 1
            if depth == 0:
                break
        if depth:
            raise _other_form("a brace that is not closed")
        yield _Field(key, name.start(), inside, tokens[at - 1].start())


def _number(text: str) -> int:
    if re.fullmatch(r"\d+", text) is None:
        raise _other_form(f"{text!r} where a version stands")
    return int(text)


def _other_form(received: str) -> StorageError:
    return StorageError(
        "kcost labels versions in a models.config of the form model_config_list { config { ... } }.",
        received=received,
        remedy="Write the label there yourself, or move the file away; kcost then writes a new one.",
    )
