"""The errors a user can cause and mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

LONGEST = 1000
"""Characters of a message: names that a file holds may be as long as they like."""


def printable(text: str) -> str:
    """A text as a terminal may show it: short, on one line, and without control characters that a file's names may hold."""
    text = "".join(c if c.isprintable() else " " if c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


class SpaditError(Exception):
    """A problem with the data or the settings, told so that a user can mend it.

    Parameters
    ----------
    message
        What is wrong, in one sentence, naming the file, gene, column or value.
    remedy
        What to do about it, in one sentence. Shown after the message.
    """

    def __init__(self, message: str, remedy: str = ""):
        self.message = printable(message)
        self.remedy = printable(remedy)
        super().__init__(f"{self.message} {self.remedy}".strip())


class InputError(SpaditError):
    """A file that can't be read, or that holds something other than it should."""


class PairingError(SpaditError):
    """A slide and a reference that don't go together."""


class TrainingError(SpaditError):
    """A training that can't start or came to nothing usable."""


class MethodError(SpaditError):
    """A method of the benchmark that can't run here, or that returned something unusable."""
