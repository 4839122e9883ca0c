"""bootsplice: place, relocate and splice Linux/x86 boot protocol kernels into things that boot."""
