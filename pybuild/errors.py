"""The two ways a run can fail, each with a clear line on standard error and an exit status.

That line says which file and field, what was found, what was expected and what to do; what NASM
said or what a guest showed may follow it. Any other exception but the system's own errors is a bug
in bootsplice and keeps its traceback.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, NoReturn


class BootspliceError(Exception):
    """A failure that bootsplice foresaw; its text is the whole message."""

    exit_status = 1


class InputError(BootspliceError):
    """The user's input is wrong: a kernel, an initrd, a recipe, a machine profile, an option."""

    exit_status = 2


class BuildError(BootspliceError):
    """A build or a boot failed: the assembler, the linker, a tool that is missing, a guest."""


FORESEEN: Final = (BootspliceError, OSError)  # every failure that is no bug


def line(error: BootspliceError | OSError) -> str:
    """What such a failure is on standard error."""
    if isinstance(error, BootspliceError):
        return f"bootsplice: {error}"
    return f"bootsplice: {error.filename or 'input/output'}: {error.strerror}"


@contextlib.contextmanager
def reported(fail: Callable[[str, int], NoReturn]) -> Iterator[None]:
    """Turns every failure that is no bug into a call of `fail` with its text and exit status."""
    try:
        yield
    except BootspliceError as error:
        fail(line(error), error.exit_status)
    except OSError as error:
        fail(line(error), BuildError.exit_status)
