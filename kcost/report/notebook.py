"""What the public functions return, as a notebook shows it: a sentence, a table of a few rows and a picture.

Each class here is the document that a function returns, with `_repr_html_`, `to_frame` and `plot` added. It holds the
same fields, is written to the same JSON, and is made by `shown`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from kcost.core.errors import InputError, UnavailableError
from kcost.core.units import significant
from kcost.cost.ranking import Ratio
from kcost.report.interval_chart import Axis, Mark, interval_plot, interval_svg
from kcost.report.plots import Plot
from kcost.report.templates import page_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

TEMPLATE = "notebook.html"
ROWS = 12
"""Most rows of the table, and of the picture."""
NOTES = 3
ONE_COLOUR = "#2b7de9"
"""Of figures that are no backend's."""

Standing = Literal["good", "open", "bad"]
S = TypeVar("S", bound=BaseModel)


class Says(NamedTuple):
    """A sentence that concludes something."""

    sentence: str
    standing: Standing = "open"


class Chart(NamedTuple):
    """Figures with intervals and what they are of."""

    marks: Sequence[Mark]
    axis: Axis
    title: str


class View(NamedTuple):
    """What a notebook shows."""

    says: Sequence[Says]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int]
    """Columns of words, which stand on the left."""
    chart: Chart | None
    notes: Sequence[str] = ()
    """What limits it, the most serious first."""
    then: str | None = None
    """What to do with it."""


class Shown(ABC):
    """A document that shows itself in a notebook."""

    def __eq__(self, other: object) -> bool:
        """Equal to the plain document of the same values too, such as one that was read from a file."""
        if isinstance(other, BaseModel) and isinstance(self, type(other)):
            return dict(self) == dict(other)
        return NotImplemented

    @abstractmethod
    def view(self) -> View:
        """What is shown."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Everything that the table is of, a dictionary a row, with plain figures; units stand in the names."""

    def plots(self) -> list[Plot]:
        """The plots that there are, the main one first."""
        chart = self.view().chart
        if chart is None:
            return []
        return [interval_plot(chart.marks, chart.axis, title=chart.title, note="")]

    def to_frame(self) -> pandas.DataFrame:
        """The table as a pandas frame, with a row for each thing that was compared.

        Raises:
            UnavailableError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise UnavailableError(
                "A frame is one of pandas.",
                received="an environment without pandas",
                remedy="Install it: pip install 'kcost[notebook]'",
            ) from error
        return pandas.DataFrame.from_records(self.records())

    def plot(self, number: int = 0) -> plotly.graph_objects.Figure:
        """One of the plots, as a plotly figure that can be changed, shown and saved.

        Args:
            number: 0 is the main one.

        Raises:
            InputError: there is no such plot.
        """
        import plotly.graph_objects as go

        plots = self.plots()
        if not 0 <= number < len(plots):
            raise InputError(
                "A plot is named by its number.",
                received=number,
                remedy=f"There are: {'; '.join(f'{i}: {p.title}' for i, p in enumerate(plots)) or 'none'}.",
            )
        chosen = plots[number]
        return go.Figure(chosen.figure).update_layout(title={"text": chosen.title})

    def _repr_html_(self) -> str:
        view = self.view()
        svg = "" if view.chart is None else _picture(view.chart)
        view = view._replace(notes=view.notes[:NOTES])
        return page_of(TEMPLATE, {}, view=view, svg=svg, rows=ROWS).decode()


def shown(kind: type[S], document: BaseModel) -> S:
    """A document as one of the kind that shows itself: the same values, nothing checked again."""
    return kind.model_construct(_fields_set=set(document.model_fields_set), **dict(document))


def _picture(chart: Chart) -> str:
    return interval_svg(chart.marks[:ROWS], chart.axis, title=chart.title) if chart.marks else ""


def ratio_text(ratio: Ratio) -> str:
    """A ratio with its 95% interval, for a cell of a table."""
    high = "unbounded" if ratio.high is None else significant(ratio.high)
    return f"{significant(ratio.value)} ({significant(ratio.low)} to {high})"


def ratio_fields(name: str, ratio: Ratio | None) -> Mapping[str, float | None]:
    """A ratio and the ends of its 95% interval as fields of a record."""
    if ratio is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
