"""The Xen lab: a real Xen with a dom0 in QEMU, and HVM guests in that."""
