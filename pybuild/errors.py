"""The two ways a run can fail, each one clear line on standard error and an exit status.

The text of either says which file and field, what was found, what was expected and what to do.
Any other exception is a bug in bootsplice and keeps its traceback.
"""


class BootspliceError(Exception):
    """A failure that bootsplice foresaw; its text is the whole message."""

    exit_status = 1


class InputError(BootspliceError):
    """The user's input is wrong: a kernel, an initrd, a recipe, a machine profile, an option."""

    exit_status = 2


class BuildError(BootspliceError):
    """A build or a boot failed: the assembler, the linker, a tool that is missing, a guest."""
