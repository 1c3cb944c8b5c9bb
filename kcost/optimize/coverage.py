"""What a change of a model reached and what it left as it was."""

from __future__ import annotations

from kcost.core.schema import Record


class Change(Record):
    """One layer that was changed, or that was left as it was."""

    layer: str
    """Path in the model, `/` between levels: `encoder/block_0/attention/query`."""
    what: str
    """What was done (`Dense -> int8 dynamic`), or why nothing was."""
    parameters: int
    """Numbers that the layer held before the change."""


class Coverage(Record):
    """What a change of a model reached, in the order of the model's layers.

    Examples:
        >>> from kcost.optimize import Change, Coverage
        >>> done = Change(layer="dense", what="Dense -> int8 dynamic", parameters=300)
        >>> left = Change(layer="head", what="named in skip", parameters=100)
        >>> Coverage(changed=(done,), skipped=(left,)).share
        0.75
    """

    changed: tuple[Change, ...] = ()
    skipped: tuple[Change, ...] = ()

    @property
    def changed_parameters(self) -> int:
        """Numbers in the layers that were changed."""
        return sum(change.parameters for change in self.changed)

    @property
    def share(self) -> float:
        """Part of the numbers in the layers looked at that lie in changed ones; 0.0 where there are none."""
        total = self.changed_parameters + sum(change.parameters for change in self.skipped)
        return self.changed_parameters / total if total else 0.0
