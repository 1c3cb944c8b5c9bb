"""The verbs on cards: write one from a risk report, and hold it against its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcost.api.risk import assess_risk
from kcost.api.risk_predictions import folder_of, report_of
from kcost.core import schema
from kcost.core.artifact import Model, open_model
from kcost.core.errors import InputError, StorageError

CARD_FILE = "card.md"
ANNEX_SUFFIX = "-annex-iv"
"""Behind a card's name: the page with the headings of Annex IV of the EU AI Act."""


def write_card(model: Path | str, out: Path | str | None = None, *, risk: Path | str | None = None) -> Path:
    """Writes the model card of a risk report that is there: Markdown with the metadata that Hugging Face reads.

    Beside it lie a page with the headings of Annex IV of the EU AI Act, and both as HTML: of `card.md` these are
    `card-annex-iv.md`, `card.html` and `card-annex-iv.html`.

    Args:
        model: an artifact folder or a .keras file of which `assess_risk` wrote a report.
        out: the file to make; None takes `card.md` beside the report.
        risk: the folder of the report, where it was given another.

    Raises:
        InputError: there is no report of this model.
        StorageError: one of the Markdown files is there already, or cannot be written.
    """
    from kcost.risk.annex_iv import render_annex
    from kcost.risk.card import render_card

    opened = open_model(model)
    folder = folder_of(opened) if risk is None else Path(risk)
    path = folder / CARD_FILE if out is None else Path(out)
    annex = _annex_of(path)
    for one in (path, annex):
        if one.exists():
            raise StorageError(
                "kcost overwrites no card: a person may have written in it.", one, "Name another file with --out."
            )
    report = report_of(opened, folder)
    schema.write_bytes(path, render_card(report, opened.artifact).text.encode())
    schema.write_bytes(annex, render_annex(report, opened.artifact).text.encode())
    write_card_pages(model, path)
    return path


def write_card_pages(
    model: Path | str, card: Path | str | None = None, *, risk: Path | str | None = None
) -> tuple[Path, ...]:
    """Makes the HTML pages of a card and of its Annex IV anew, with what a person wrote in their Markdown since.

    Args:
        card: the card; None takes `card.md` beside the report.
        risk: the folder of the report, where it was given another.

    Returns:
        The pages that were written.

    Raises:
        InputError: there is no card.
        StorageError: a page cannot be written.
    """
    opened = open_model(model)
    path = _card_of(opened, card, risk)
    _read(path, model)
    pages = []
    for source in (path, _annex_of(path)):
        if source.exists():
            page = source.with_suffix(".html")
            schema.write_bytes(page, _page_of(source, model))
            pages.append(page)
    return tuple(pages)


def verify_card(
    model: Path | str, card: Path | str | None = None, *, risk: Path | str | None = None
) -> tuple[str, ...]:
    """Takes every figure of a card anew from the stored predictions and the data; what differs, empty for nothing.

    The page of Annex IV is held against the same evidence, and each HTML page against its Markdown. Of `card.md` beside
    the report all of them have to be there; of a card that is named, those that are there are looked at. Predictions
    that are gone, or are of another model, are made again.

    Args:
        card: the file; None takes `card.md` beside the report.
        risk: the folder of the report, where it was given another.

    Raises:
        InputError: there is no card or no report of this model.
    """
    from kcost.risk.annex_iv import render_annex
    from kcost.risk.card import differences, render_card

    opened = open_model(model)
    folder = folder_of(opened) if risk is None else Path(risk)
    path = _card_of(opened, card, risk)
    text = _read(path, model)
    options: dict[str, Any] = dict(report_of(opened, folder).evidence.options)
    again = assess_risk(model, out=folder, write=False, **options)
    lines = [f"{path.name}: {line}" for line in differences(text, render_card(again, opened.artifact))]
    annex = _annex_of(path)
    if annex.exists():
        annex_text = _read(annex, model)
        lines += [f"{annex.name}: {line}" for line in differences(annex_text, render_annex(again, opened.artifact))]
    elif card is None:
        lines.append(f"{annex.name} is missing")
    for source in (path, annex):
        if source.exists():
            lines += _differences_of_page(source, model, required=card is None)
    return tuple(lines)


def _differences_of_page(source: Path, model: Path | str, *, required: bool) -> list[str]:
    """What in an HTML page is not as its Markdown has it."""
    from kcost.risk.card import differing

    page = source.with_suffix(".html")
    if not page.exists():
        return [f"{page.name} is missing: kcost card pages {model}"] if required else []
    expected = _page_of(source, model).decode()
    try:
        text = page.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [f"{page.name} is no text in UTF-8"]
    lines = list(differing(page.name, text, expected))
    if lines:
        lines.append(f"{page.name} is made of {source.name} by: kcost card pages {model}")
    elif text != expected:
        lines.append(f"{page.name} differs in how its lines end")
    return lines


def _page_of(source: Path, model: Path | str) -> bytes:
    from kcost.report.card_page import render_card_page

    return render_card_page(_read(source, model), source.stem)


def _card_of(model: Model, card: Path | str | None, risk: Path | str | None) -> Path:
    folder = folder_of(model) if risk is None else Path(risk)
    return folder / CARD_FILE if card is None else Path(card)


def _annex_of(card: Path) -> Path:
    return card.with_name(f"{card.stem}{ANNEX_SUFFIX}.md")


def _read(path: Path, model: Path | str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"Write it: kcost card {model}"
        raise InputError("A card that is verified is there.", f"{path}: {error}", remedy) from error
