"""How a command prints its usage."""

from typing import Any

from typer.core import TyperCommand


class Command(TyperCommand):
    """A command whose usage has the usual form: ``BATCH RESULTS...``, without braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]
