"""The errors a user can cause and mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


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
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} {remedy}".strip())


class InputError(SpaditError):
    """A file that can't be read, or that holds something other than it should."""


class PairingError(SpaditError):
    """A slide and a reference that don't go together."""


class TrainingError(SpaditError):
    """A training that can't start or came to nothing usable."""


class MethodError(SpaditError):
    """A method of the benchmark that can't run here, or that returned something unusable."""
