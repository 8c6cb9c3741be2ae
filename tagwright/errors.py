"""The one exception that is meant for a person: its text says what was wrong, where, and what to do."""


class TagwrightError(Exception):
    """A fault in what the user gave (a file, a task, a model folder); the CLI prints it as one line and exits 2."""
