"""`bootsplice debug`: a guest in QEMU, stopped at a place in its boot, with gdb."""
