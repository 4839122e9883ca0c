"""The linter of the NASM sources: for each rule a source that breaks it, and what it says then."""

from pathlib import Path

import pytest
from linting import GOOD, KERNEL, PAGE, PROTOCOL, changed, lint

from pybuild import bootproto, paths
from pybuild.lint import asmlint, asmtext


def test_the_projects_own_sources_are_clean() -> None:
    assert [str(finding) for finding in asmlint.findings(paths.ROOT)] == []


def test_what_is_right_is_not_found(tmp_path: Path) -> None:
    files = {"asm/i386/x.asm": GOOD, "kernels/k/k.asm": KERNEL, "asm/include/a.inc": PROTOCOL}
    files["asm/include/a.inc"] = PROTOCOL.replace("bootproto", "a")
    assert lint(tmp_path, files) == []


@pytest.mark.parametrize("name", ["i386/relocator", "x86_64/relocator", "i386/relocator_seed"])
def test_the_contracts_breakers_that_can_be_seen(tmp_path: Path, name: str) -> None:
    """Those of the relocators; what only running them shows is for the contract tests."""
    source = (paths.ROOT / f"asm/{name}.asm").read_text()
    lines = source.split("\n")
    ss, leaves = (
        lines.index("    mov ss, eax") + 1,
        1 + next(n for n, line in enumerate(lines) if line.startswith("; leaves")),
    )
    faults = {
        changed("    mov ss, eax\n", "", source): (leaves, "leaves ss=0x18, but nothing loads ss"),
        changed("eax, __BOOT_DS", "eax, 0x10", source): (ss, "ss gets 0x10, a code segment's"),
        changed("eax, __BOOT_DS", "eax, __BOOT_CS", source): (ss, "ss gets __BOOT_CS, a code"),
    }
    if "    std\n" in source:
        text = changed("    cld\n\n.moved", "\n.moved", source)
        faults[text] = (lines.index("    std") + 1, "std, and DF stays set")
    for text, (line, what) in faults.items():
        assert text != source
        found = lint(tmp_path, {f"asm/{name}.asm": text})
        assert any(f.startswith(f"asm/{name}.asm:{line}: {what}") for f in found), (what, found)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("; limit     128\n", "", "1: the header comment has no `limit` line; see docs/"),
        ("; limit     128", "; limit     12z", "6: contract line `limit`: found '12z'"),
        ("; x.asm - copies", "; copies", '1: no line says what this is: write "; x.asm - what'),
        ("    ret", "\tret", "25: a tab: write blanks"),
        ("    ret", "    ret ", "25: blanks at the end of the line: remove them"),
        ("    ret", f"    ret{';' * 95}", "25: 102 characters, at most 100: break the line"),
        (
            "; reads     src address 0..0xffff\n",
            "",
            "9: symbol 'src' is in no `reads` line: write "
            '"; reads     src address|bytes|value LOW..HIGH" in the header',
        ),
        ("extern src", "", "4: symbol 'src' is declared by no `extern src`: write that, too"),
        (
            "    mov ss, eax\n",
            "",
            '5: leaves ss=0x18, but nothing loads ss: write "mov ss, ..." in the code',
        ),
        ("bits 32", "SIZE equ 7", "8: 'SIZE' is used nowhere: remove it"),
        # Each line of a routine's comment, and all of it.
        (
            "; copy: copies upwards.\n",
            "",
            "19: routine 'copy' has no line that says what it does: begin the comment above its "
            'label with "; copy: ..."',
        ),
        (
            "; In:       esi = from, edi = to, ecx = bytes\n",
            "",
            "22: routine 'copy' has no In: write \"; In:       what it takes\" above its label",
        ),
        (
            "; Out:      nothing\n",
            "",
            "22: routine 'copy' has no Out: write \"; Out:      what it gives\" above its label",
        ),
        (
            "; Clobbers: ecx, esi, edi\n",
            "",
            "22: routine 'copy' has no Clobbers: "
            'write "; Clobbers: ecx, esi, edi" above its label',
        ),
        (
            "; Clobbers: ecx, esi, edi",
            "; Clobbers: ecx, edi",
            "23: routine 'copy' changes esi, and says so neither in Clobbers nor in Out: write "
            '"; Clobbers: ecx, edi, esi"',
        ),
        ("; Clobbers: ecx, esi, edi", "; Clobbers: this and that", "23: routine 'copy': Clobbers"),
        (
            "; Out:      nothing",
            "; Out: nothing",
            "21: routine 'copy': write \"; Out:      nothing\", its value in column 13",
        ),
        # The contract's breakers that can be seen in the text.
        (
            "    mov eax, __BOOT_DS",
            "    mov eax, 0x18",
            "14: ss gets 0x18, a bare selector: load __BOOT_DS instead",
        ),
        (
            "    mov eax, __BOOT_DS",
            "    mov eax, 16",
            "14: ss gets 16, a code segment's selector: load __BOOT_DS instead",
        ),
        (
            "    mov eax, __BOOT_DS",
            "    mov eax, __BOOT_CS",
            "14: ss gets __BOOT_CS, a code segment's selector: load __BOOT_DS instead",
        ),
        ("    jmp esi", "    jmp 0x10:copy", "17: a bare selector: for 0x10 write __BOOT_CS"),
        ("    rep movsb", "    std", '24: std, and DF stays set: write "cld" where it is done'),
        # The boot protocol's fields.
        (
            "    jmp esi",
            "    jmp [esi + 0x214]",
            "17: a bare offset in boot_params: for 0x214 write boot_params.code32_start",
        ),
        (
            "    jmp esi",
            "    jmp [ebp+532+esi]",
            "17: a bare offset in boot_params: for 532 write boot_params.code32_start",
        ),
        (
            "    jmp esi",
            "    cmp byte [esi + 1e8h], 0",
            "17: a bare offset in boot_params: for 1e8h write E820_ENTRIES",
        ),
        (
            "    jmp esi",
            "    times 510 - ($ - $$) db 0",
            "17: a bare offset in boot_params: for 510 write boot_params.boot_flag",
        ),
        (
            "    jmp esi",
            "    mov al, [esi + 0x1f5]",
            "17: a bare offset in boot_params: for 0x1f5 write boot_params.syssize + 1",
        ),
    ],
)
def test_each_rule_says_what_to_write(tmp_path: Path, old: str, new: str, expected: str) -> None:
    files = {"asm/i386/x.asm": changed(old, new), "asm/include/bootproto.inc": PROTOCOL}
    found = lint(tmp_path, {**files, "asm/include/zeropage.inc": PAGE})
    assert [line for line in found if line.startswith(f"asm/i386/x.asm:{expected}")], found
    assert len(found) <= 2


CLEAR = """
; clear: clears eax.
; In:       nothing
; Out:      eax = 0
; Clobbers: nothing
clear:
    mov eax, 0
    ret
"""
MACROS = """
%macro end 0
    ret
%endmacro
%macro save 1-*
%rep %0
    push %1
%rotate 1
%endrep
%endmacro
%macro restore 1-*
%rep %0
%rotate -1
    pop %1
%endrep
%endmacro
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Other numbers, other structures, other registers.
        ("    jmp esi", "    jmp [esi + 0x300]"),
        ("    jmp esi", "    jmp [0x214]"),
        ("    jmp esi", "    mov eax, 0x214"),
        ("    jmp esi", "    mov eax, 0x18\n    mov ecx, eax\n    add eax, 5\n    mov ds, eax"),
        ("    jmp esi", "    db '[esi + 0x214] mov ds, 0x10'"),
        # What a routine puts back, does on its way to where nothing comes back from, or gives.
        ("    rep movsb", "    push eax\n    mov eax, 1\n    rep movsb\n    pop eax"),
        ("    rep movsb", "    mov ebx, esi\n    mov eax, 1\n    jmp stop\n.x:\n    rep movsb"),
        ("; Out:      nothing", "; Out:      ebx = 0, ZF set"),
        ("    rep movsb", "    pushfd\n    std\n    rep movsb\n    popfd"),
        ("    rep movsb", "    std\n.again:\n    rep movsb\n    cld"),
        ("bits 32", "%macro put 1\n    mov [edi], %1\n%endmacro\nbits 32"),
        # What a program begins with is no routine, whatever is defined above it.
        (
            "bits 32\n\nextern src\n\nstart:",
            "%macro put 1\n    nop\n%endmacro\nstruc s\nfirst: resd 1\nendstruc\n"
            "bits 32\nextern src\nstart:\n    jz start\n    dd start, copy",
        ),
        # Names in a line that goes on, and with the label that they belong to.
        ("    jmp esi", "one equ 1\ntwo equ 2\n    db one, \\\n        two\n    jmp esi"),
        ("    jmp esi", "    db 1, copy.size\n    jmp esi\ncopy:\n.size equ $ - copy"),
        # Segment registers that something else than MOV and POP loads.
        ("    mov ss, eax", "    lss esp, [esi]"),
        (
            "bits 32\n\nextern src\n\nstart:\n    mov eax, __BOOT_DS\n    mov ss, eax",
            "%macro put 2-*\n%rotate 1\n    mov %1, eax\n%endmacro\nbits 32\nextern src\n"
            "start:\n    put ds, ss",
        ),
        ("; Clobbers: ecx, esi, edi", "; Clobbers: everything but eax"),
        # A macro that ends a routine, and one of whose operands it is not told which comes when.
        ("    rep movsb\n    ret\n", "    rep movsb\n    end\n" + CLEAR),
        (
            "    rep movsb\n    ret",
            "    save eax, ebx\n    mov eax, 1\n    mov ebx, 1\n    rep movsb\n"
            "    restore eax, ebx\n    ret",
        ),
    ],
)
def test_what_is_not_wrong_is_not_found(tmp_path: Path, old: str, new: str) -> None:
    stop = "\n; stop: waits.\n; In:       nothing\n; Out:      does not return\n"
    stop += "; Clobbers: everything\nstop:\n    mov ebx, 1\n    call stop\n    jmp stop\n"
    assert lint(tmp_path, {"asm/i386/x.asm": changed(old, new) + stop + MACROS}) == []


CALLER = """
; caller: calls.
; In:       nothing
; Out:      nothing
; Clobbers: {claims}
caller:
    {code}
    ret

; user: uses it.
; In:       nothing
; Out:      nothing
; Clobbers: everything
user:
    call caller
    jmp caller
"""


@pytest.mark.parametrize(
    ("code", "claims", "changes"),
    [
        ("call copy", "eax", "ecx, esi, edi"),
        ("push ecx\n    call copy\n    pop ecx", "eax", "esi, edi"),
        ("jz copy", "ecx, edi", "esi"),
        ("spoil edx", "nothing", "edx, flags"),
        ("movzx eax, al", "al", "eax"),
        ("mov ah, 1", "al", "ah"),
        ("mov ah, 1", "ax", ""),
        ("lodsw", "si", "ax, esi"),
        ("div ecx", "eax, flags", "edx"),
        ("mul cl", "ax, flags", ""),
        ("xchg eax, edx", "eax", "edx"),
        ("test eax, eax", "nothing", "flags"),
        ("cpuid", "everything but ebx", "ebx"),
    ],
)
def test_what_a_routine_changes(tmp_path: Path, code: str, claims: str, changes: str) -> None:
    text = "%macro spoil 1\n    xor %1, %1\n%endmacro\n"
    text = GOOD + text + CALLER.format(code=code, claims=claims)
    found = [line for line in lint(tmp_path, {"asm/i386/x.asm": text}) if "'caller'" in line]
    says = f"changes {changes}, and says so neither in Clobbers nor in Out"
    assert [says in line for line in found] == [True] * bool(changes)


def test_includes_and_kernels_say_what_they_are(tmp_path: Path) -> None:
    files = {
        "asm/include/a.inc": "; a.inc - what there is\n",
        "asm/i386/b.inc": "; b.inc - driver: of something\n",
        "kernels/k/k.asm": KERNEL.replace("; in: nothing\n", ""),
    }
    assert lint(tmp_path, files) == [
        "asm/include/a.inc:1: what kind of include file this is is missing: write "
        '"; a.inc - contract|constants|driver|macros|part: what it is about"',
        'kernels/k/k.asm:1: the header has no "in": write "; in: what it finds in registers"',
    ]


def test_a_routine_is_what_is_called_from_anywhere(tmp_path: Path) -> None:
    bare = "; a.inc - contract: code\n\n{label}:\n    ret\n\nrest:\n    ret\n"
    for use, label in (
        ("call there", "there"),
        ("mov eax, there", "there"),
        ("dd there", "there"),
        ("jmp there", "there"),
        ("call there.inside", "other"),
    ):
        source = changed("    jmp esi", f"    {use}")
        found = lint(
            tmp_path, {"asm/i386/x.asm": source, "asm/include/a.inc": bare.format(label=label)}
        )
        assert len(found) == (4 if label == "there" else 0), use


def test_a_file_uses_its_own_labels(tmp_path: Path) -> None:
    """Two programs may each have a place of the same name."""
    own = changed("    jmp esi", "    jmp esi\n\nhang:\n    jmp hang")
    other = own.replace("x.asm", "y.asm")
    assert lint(tmp_path, {"asm/i386/x.asm": own, "asm/i386/y.asm": other}) == []


def test_every_field_has_a_name() -> None:
    for field in bootproto.FIELDS:
        if field.offset >= 0x1F1 and field.until is None:
            name = f"boot_params.{field.name}"
            source = asmtext.parse(f"    mov eax, [esi + {field.offset:#x}]")
            ((_, text),) = asmlint._offsets(source, {})
            assert text.endswith(f"write {name}")
