"""The exceptions that are meant for a person, whose text says what was wrong, where, and what to do; and how they end a
command."""

import os
import signal
import sys
from collections.abc import Callable


class TagwrightError(Exception):
    """A fault in what the user gave (a file, a task, a model folder); a command prints it as one line and exits 2."""


class Busy(TagwrightError):
    """Another process is at work in the same folder."""


class Paused(Exception):
    """Long work stopped before its end, with everything so far saved: its text says what is saved and when to go on.

    A command prints it as one line and exits with `code`: 3, or 130 after Ctrl-C.
    """

    def __init__(self, text: str, code: int = 3):
        super().__init__(text)
        self.code = code


def run(app: Callable[[], None]) -> None:
    """Run a command-line program: the exceptions above become one line and an exit code; SIGTERM acts as Ctrl-C does."""
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file of a long run can be followed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except TagwrightError as error:
        print("error: " + _one_line(error), file=sys.stderr)
        sys.exit(2)
    except Paused as ending:
        print(_one_line(ending), file=sys.stderr)
        sys.exit(ending.code)
    except BrokenPipeError:  # the reader of our output has gone, as in `tagwright … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())  # whatever a library's message held
