"""A budget as a workbook whose cells are formulas: what finance changes, it computes again.

Sheet `assumptions` holds what may be changed, `traffic` the rates, `options` a column of inputs and formulas for each
option, `answer` the totals and the break-even between the two cheapest. Cells to change are blue.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from kcost.core.errors import InputError, UnavailableError
from kcost.cost.assumptions import HOURS_PER_MONTH, Assumption, Assumptions, assume
from kcost.cost.budget import Budget
from kcost.cost.sizing import ROUNDING, instances_for, rates_of, replicas_for

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

INPUT_COLOUR = "#1F4FBF"
LABEL_WIDTH, VALUE_WIDTH, SOURCE_WIDTH = 44, 18, 70


def workbook(budget: Budget) -> bytes:
    """The bytes of an .xlsx file.

    Each formula carries the value that kcost computed: a program that shows without computing shows the same.

    Raises:
        InputError: the budget has no option.
        UnavailableError: xlsxwriter is not installed.
    """
    if not budget.options:
        raise InputError(
            "A workbook holds the calculation of a budget.", received=budget.sentence, remedy="Measure again first."
        )
    try:
        import xlsxwriter
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "A workbook is written by xlsxwriter.", received="not installed", remedy="pip install 'kcost[xlsx]'"
        ) from error
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer, {"in_memory": True})
    _Sheets(book, budget).write()
    book.close()
    return buffer.getvalue()


class _Sheets:
    """The sheets of one budget."""

    def __init__(self, book: Workbook, budget: Budget) -> None:
        self.budget = budget
        self.assumptions = assume({a.name: _own_type(a) for a in budget.assumptions}, {})
        self.bold: Format = book.add_format({"bold": True})
        self.input: Format = book.add_format({"font_color": INPUT_COLOUR})
        self.usd: Format = book.add_format({"num_format": "#,##0.00"})
        self.wrap: Format = book.add_format({"text_wrap": True, "bold": True})
        self.answer: Worksheet = book.add_worksheet("answer")
        self.options: Worksheet = book.add_worksheet("options")
        self.hours: Worksheet = book.add_worksheet("traffic")
        self.assumed: Worksheet = book.add_worksheet("assumptions")
        self.book = book

    def write(self) -> None:
        self._write_assumptions()
        self._write_hours()
        self._write_options()
        self._write_answer()

    def _write_assumptions(self) -> None:
        sheet = self.assumed
        sheet.set_column(0, 0, LABEL_WIDTH)
        sheet.set_column(1, 2, VALUE_WIDTH)
        sheet.set_column(3, 3, SOURCE_WIDTH)
        sheet.write_row(0, 0, ("assumption", "value", "unit", "source"), self.bold)
        for row, one in enumerate(self.budget.assumptions, start=1):
            sheet.write_string(row, 0, one.name)
            sheet.write_number(row, 1, one.value, self.input)
            sheet.write_string(row, 2, one.unit)
            sheet.write_string(row, 3, one.source)
            self.book.define_name(one.name, f"=assumptions!$B${row + 1}")

    def _write_hours(self) -> None:
        """The rates by hour; below each option the instances that an hour takes, for autoscaling."""
        sheet, traffic = self.hours, self.budget.traffic
        rates = rates_of(traffic)
        sheet.set_column(0, 0, LABEL_WIDTH)
        sheet.write_row(0, 0, ("hour", "requests a second"), self.bold)
        first, last = 2, len(rates.hours) + 1
        for row, rate in enumerate(rates.hours, start=1):
            sheet.write_number(row, 0, row - 1)
            sheet.write_number(row, 1, rate, self.input)
        sheet.write_string(0, 3, "peak over busiest hour", self.bold)
        sheet.write_number(1, 3, rates.burst, self.input)
        sheet.write_string(0, 4, "mean", self.bold)
        sheet.write_formula(1, 4, f"=AVERAGE(B{first}:B{last})", None, traffic.mean_queries_per_s)
        sheet.write_string(0, 5, "peak", self.bold)
        sheet.write_formula(1, 5, f"=MAX(B{first}:B{last})*D2", None, rates.peak)
        for name, cell in (("burst", "D"), ("mean_rate", "E"), ("peak_rate", "F")):
            self.book.define_name(name, f"=traffic!${cell}$2")

    def _write_options(self) -> None:
        sheet = self.options
        sheet.set_column(0, 0, LABEL_WIDTH)
        sheet.set_column(1, len(self.budget.options), VALUE_WIDTH)
        for row, label in enumerate(ROWS):
            sheet.write_string(row, 0, label, self.bold)
        for place, priced in enumerate(self.budget.options):
            bill, option, column = priced.bill, priced.bill.option, place + 1
            letter = _letter(column)
            sheet.write_string(0, column, option.name, self.wrap)
            sheet.write_string(1, column, option.instance)
            sheet.write_string(2, column, "simulated" if option.simulated else option.basis)
            once = option.one_off
            inputs = (
                *(option.usd_per_hour, option.spot_usd_per_hour or 0.0, option.queries_per_s_per_replica),
                *(option.queries_per_s_at_full_load, option.workers_per_instance, once.work_hours, once.labels),
                *(once.usd_per_label, once.training_usd, option.watts_per_instance or 0.0, option.usd_per_kwh),
            )
            for row, number in enumerate(inputs, start=3):
                sheet.write_number(row, column, number, self.input)
            paid = option.watts_per_instance and option.usd_per_kwh
            usd = {line.kind: line.usd for line in bill.lines}
            hours = 24 * self.budget.horizon_days
            kw = usd["energy"] / hours / option.usd_per_kwh if paid else 0.0
            running = bill.usd_per_month / HOURS_PER_MONTH
            values: dict[str, tuple[str, float]] = {
                "replicas at the peak": (_replicas("peak_rate", letter), bill.replicas),
                "instances at the peak": (_in_zones(_up(f"{letter}15/{letter}8")), bill.instances),
                "USD an hour": (
                    self._hourly(letter, place, f"{letter}4", f"{letter}5"),
                    running - kw * option.usd_per_kwh,
                ),
                "kW": (self._hourly(letter, place, f"{letter}13/1000", f"{letter}13/1000"), kw),
                "serving, USD": (f"ROUND({letter}17*24*horizon_days,2)", usd["serving"]),
                "work, USD": (f"ROUND({letter}9*work_usd_per_hour,2)", usd["work"]),
                "labelling, USD": (f"ROUND({letter}10*{letter}11,2)", usd["labelling"]),
                "training, USD": (f"ROUND({letter}12,2)", usd["training"]),
                "energy, USD": (f"ROUND({letter}18*{letter}14*24*horizon_days,2)", usd["energy"]),
                "total over the horizon, USD": (f"SUM({letter}19:{letter}23)", bill.usd_total),
                "USD a month": (f"({letter}17+{letter}18*{letter}14)*{HOURS_PER_MONTH:g}", bill.usd_per_month),
                "USD a million": (f"{letter}25/{HOURS_PER_MONTH:g}/(mean_rate*3600)*1000000", bill.usd_per_million),
                "USD a million at full load": (
                    f"{letter}4/{letter}8/({letter}7*3600)*1000000",
                    bill.usd_per_million_full,
                ),
                "idle share": (f"MAX(0,1-{letter}27/{letter}26)", bill.idle_share),
                "paid once, USD": (f"{letter}20+{letter}21+{letter}22", bill.usd_once),
            }
            for row, (formula, value) in enumerate(values.values(), start=14):
                self.options.write_formula(row, column, f"={formula}", self.usd if row > 17 else None, value)

    def _hourly(self, letter: str, place: int, on_demand: str, spot: str) -> str:
        """What the instances cost an hour; with autoscaling the mean of the hours, which the sheet `traffic` holds."""
        peak = _spend(f"{letter}16", on_demand, spot)
        hours = len(self.budget.traffic.queries_per_s)
        if hours == 1:
            return peak
        column = 7 + place
        own = _letter(column)
        option, assumed = self.budget.options[place].bill.option, self.assumptions
        each = option.queries_per_s_per_replica
        rates = [rate * rates_of(self.budget.traffic).burst for rate in self.budget.traffic.queries_per_s]
        self.hours.write_string(0, column, f"instances of {option.name}", self.wrap)
        for row in range(1, hours + 1):
            replicas = _replicas(f"B{row + 1}*burst", f"options!{letter}")
            needed = replicas_for(rates[row - 1], each, assumed)
            count = float(instances_for(needed, option.workers_per_instance, assumed.zones))
            self.hours.write_formula(row, column, f"={_in_zones(_up(f'{replicas}/options!{letter}8'))}", None, count)
        cells = f"traffic!{own}2:{own}{hours + 1}"
        before = f"traffic!{own}{hours + 1}"
        shifted = f"traffic!{own}2:{own}{hours}"
        after = f"traffic!{own}3:{own}{hours + 1}"
        grown = (
            f"(SUMPRODUCT(({after}>{shifted})*({after}-{shifted}))+MAX(0,traffic!{own}2-{before}))*({on_demand})"
            "*cold_start_s/3600"
        )
        scaled = f"SUMPRODUCT({_spend(cells, on_demand, spot)})"
        return f"IF(autoscale=1,({scaled}+{grown})/{hours},{peak})"

    def _write_answer(self) -> None:
        sheet, options = self.answer, self.budget.options
        sheet.set_column(0, 0, LABEL_WIDTH)
        sheet.set_column(1, 3, VALUE_WIDTH)
        sheet.write_string(0, 0, self.budget.sentence)
        sheet.write_string(1, 0, "The sentence, the order and the intervals are of the values as kcost had them.")
        sheet.write_row(3, 0, ("option", "total, USD", "USD a month", "90% of the total"), self.bold)
        for place, priced in enumerate(options):
            letter = _letter(place + 1)
            row = place + 4
            sheet.write_formula(row, 0, f"=options!{letter}1", None, priced.bill.option.name)
            sheet.write_formula(row, 1, f"=options!{letter}24", self.usd, priced.bill.usd_total)
            sheet.write_formula(row, 2, f"=options!{letter}25", self.usd, priced.bill.usd_per_month)
            sheet.write_string(row, 3, f"{priced.usd_total.low:,.2f} to {priced.usd_total.high:,.2f}")
        back = self.budget.break_even
        if back is None:
            return
        row = len(options) + 5
        for offset, (label, formula, value) in enumerate(
            (
                ("paid once more than the runner-up, USD", "options!B29-options!C29", back.usd_once),
                ("saved a month, USD", "options!C25-options!B25", back.usd_saved_per_month),
                (
                    "days until repaid",
                    f'IF(B{row + 1}<=0,0,IF(B{row + 2}<=0,"never",B{row + 1}/(B{row + 2}/{HOURS_PER_MONTH:g}*24)))',
                    "never" if back.days is None else back.days,
                ),
                (
                    "predictions until repaid",
                    f'IF(ISNUMBER(B{row + 3}),B{row + 3}*mean_rate*86400,"never")',
                    "never" if back.predictions is None else back.predictions,
                ),
            )
        ):
            sheet.write_string(row + offset, 0, label)
            sheet.write_formula(row + offset, 1, f"={formula}", self.usd, value)


def _own_type(one: Assumption) -> float | bool | int:
    """The value of an assumption in the type of its field."""
    return type(getattr(Assumptions(), one.name))(one.value)  # type: ignore[no-any-return]


ROWS = (
    *("option", "instance", "basis", "USD an hour an instance", "on spot", "requests a second a replica"),
    *("requests a second at full load", "workers an instance", "hours of work", "labels", "USD a label"),
    *("training, USD", "watts an instance", "USD a kWh", "replicas at the peak", "instances at the peak"),
    *("USD an hour", "kW", "serving, USD", "work, USD", "labelling, USD", "training, USD", "energy, USD"),
    *("total over the horizon, USD", "USD a month", "USD a million", "USD a million at full load", "idle share"),
    "paid once, USD",
)
"""What stands in the rows of the sheet `options`, from the first on."""


def _letter(column: int) -> str:
    """The name of a column from its number, 0 being A."""
    name = ""
    number = column + 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def _replicas(rate: str, letter: str) -> str:
    return f"MAX(min_replicas,{_up(f'{rate}*(1+headroom)/{letter}6')})"


def _spend(instances: str, on_demand: str, spot: str) -> str:
    on_spot = f"INT({instances}*spot_share+{ROUNDING:.9f})"
    spares = _up(f"{on_spot}*spot_interruptions_per_month/{HOURS_PER_MONTH:g}*cold_start_s/3600")
    return f"({instances}-{on_spot})*({on_demand})+({on_spot}+{spares})*({spot})"


def _in_zones(instances: str) -> str:
    return f"IF(zones<2,{instances},zones*({_up(f'({instances})/MAX(1,zones-1)')}))"


def _up(number: str) -> str:
    """Rounded up, as `kcost.cost.sizing` does it. ROUNDUP would make -1 of what lies a hair below 0."""
    return f"-INT({ROUNDING:.9f}-({number}))"
