"""A source that the linter finds nothing in, others beside it, and the linter."""

from pathlib import Path

from pybuild.lint import asmlint

GOOD = """\
; x.asm - copies
;
; enter     protected32             by a test
; reads     src address 0..0xffff
; leaves    0x1000  ss=0x18
; limit     128

bits 32

extern src

start:
    mov eax, __BOOT_DS
    mov ss, eax
    mov esi, strict dword src
    call copy
    jmp esi

; copy: copies upwards.
; In:       esi = from, edi = to, ecx = bytes
; Out:      nothing
; Clobbers: ecx, esi, edi
copy:
    rep movsb
    ret
"""
PROTOCOL = "; bootproto.inc - constants: names\n__BOOT_CS equ 0x10\n__BOOT_DS equ 0x18\n"
PAGE = "; zeropage.inc - constants: names\nE820_SIZE equ 20\nE820_ENTRIES equ 0x1e8\n"
KERNEL = """\
; k.asm - a kernel
;
; entered: by a BIOS
; in: nothing
; writes: nothing
; leaves: never
; limit: none
start:
    jmp start
"""


def lint(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [str(finding) for finding in asmlint.findings(root)]


def changed(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
