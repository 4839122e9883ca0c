"""How much memory the page tables need that asm/x86_64/identity.inc builds."""

from typing import Final

TABLE: Final = 0x1000  # bytes of a page table, at any level
BELOW: Final = 1 << 47  # all addresses are below this
_GIB: Final = 1 << 30  # what a table of the lowest level maps, in pages of 2 MiB
_HALF_TIB: Final = 1 << 39  # what a table of the next level maps
_ALWAYS: Final = 7  # CR4.LA57's root, a table of 256 TiB, one of 512 GiB and four of 1 GiB
# The relocator, its tables, boot_params, the command line (64 KiB), the GDT (64 KiB at most): none
# is larger than 1 GiB.
_SMALL: Final = 5


def tables_size(length: int, init_size: int) -> int:
    """Bytes that are enough for the tables of x86_64/relocator, wherever everything lies.

    The low 4 GiB take six tables, or seven with CR4.LA57. No address reaches 2^47, so there is one
    table for each of the top levels. Beyond that a range of n bytes touches at most
    (n - 2) // 1 GiB + 2 areas of 1 GiB and (n - 2) // 512 GiB + 2 of 512 GiB, as one that begins
    with the last byte of such an area does. Each may need a table that no other range needs.
    Rounding to pages of 2 MiB changes nothing: they don't straddle such areas.

    Seven ranges are mapped: five small ones, the kernel where it was loaded, and its memory where
    it runs.

    Args:
        length: of the kernel's protected-mode part.
        init_size: the kernel's memory where it runs.

    Raises:
        ValueError: the tables themselves would be no small range.
    """
    count = _ALWAYS + _SMALL * _most(_GIB) + _most(length) + _most(max(length, init_size))
    if count * TABLE > _GIB:
        raise ValueError(f"a kernel of {length:#x} bytes in {init_size:#x} is too large")
    return count * TABLE


def _most(size: int) -> int:
    """The most tables that a range of this size needs for itself."""
    if size == 0:
        return 0
    return (size - 2) // _GIB + 2 + (size - 2) // _HALF_TIB + 2
