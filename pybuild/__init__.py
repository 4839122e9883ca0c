"""bootsplice: place, relocate and splice Linux/x86 boot protocol kernels into things that boot."""

__version__ = "0.1.0"
