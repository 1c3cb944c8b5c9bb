"""rich's console on a stream that somebody may stop reading. A module of its own: rich takes a while to import."""

from __future__ import annotations

from rich.console import Console

from kcost.core.output import drop_output


class UnreadConsole(Console):
    """A console that drops what nobody reads any more; rich's own ends the process with exit code 1 there."""

    unread = False
    """Whether the reader has gone."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        self.unread = True
        drop_output(self.file)
