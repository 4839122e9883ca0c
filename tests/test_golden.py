"""The 2007 patch series' own bytes, written out by hand: source, linker and bind must make them."""

import pytest

from pybuild import assembler, paths
from pybuild.assembler import Tree
from pybuild.splice import keep_disk_own

TREE = Tree(paths.ROOT, paths.BUILD)


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    assembler.build(TREE)


# setup_relocator's buf[] in patch 3/3, with the operands of its comment.
RELOCATOR = bytes.fromhex(
    "fc"  # cld
    "fa"  # cli
    "b818000000"  # mov $0x18,%eax
    "8ed8"  # mov %eax,%ds
    "8ec0"  # mov %eax,%es
    "8ee0"  # mov %eax,%fs
    "8ee8"  # mov %eax,%gs
    "8ed0"  # mov %eax,%ss
    "31d2"  # xor %edx,%edx
    "0fb68200006000"  # movzbl 0x600000(%edx),%eax
    "888200001000"  # mov %al,0x100000(%edx)
    "83c201"  # add $0x1,%edx
    "81fa00005000"  # cmp $0x500000,%edx
    "75e8"  # jne back to the movzbl
    "31db"  # xor %ebx,%ebx
    "b900001000"  # mov $0x100000,%ecx
    "ffe1"  # jmp *%ecx
)

# generate_bootsect's code: registers in encoding order, CS skipped.
BOOT_SECTOR = bytes.fromhex(
    "fa"  # cli
    "fc"  # cld
    "b811e0"  # mov $0xe011,%ax
    "8ec0"  # mov %ax,%es
    "b822e0"  # mov $0xe022,%ax
    "8ed0"  # mov %ax,%ss
    "b833e0"  # mov $0xe033,%ax
    "8ed8"  # mov %ax,%ds
    "b844e0"  # mov $0xe044,%ax
    "8ee0"  # mov %ax,%fs
    "b855e0"  # mov $0xe055,%ax
    "8ee8"  # mov %ax,%gs
    "66b8010203a0"  # mov $0xa0030201,%eax
    "66b9010203a1"  # mov $0xa1030201,%ecx
    "66ba010203a2"  # mov $0xa2030201,%edx
    "66bb010203a3"  # mov $0xa3030201,%ebx
    "66bc010203a4"  # mov $0xa4030201,%esp
    "66bd010203a5"  # mov $0xa5030201,%ebp
    "66be010203a6"  # mov $0xa6030201,%esi
    "66bf010203a7"  # mov $0xa7030201,%edi
    "ea"  # ljmp
    "3412"  # ip 0x1234
    "66e0"  # cs 0xe066
)
STATE = {
    "seg_es": 0xE011,
    "seg_cs": 0xE066,
    "seg_ss": 0xE022,
    "seg_ds": 0xE033,
    "seg_fs": 0xE044,
    "seg_gs": 0xE055,
    "gpr_eax": 0xA0030201,
    "gpr_ecx": 0xA1030201,
    "gpr_edx": 0xA2030201,
    "gpr_ebx": 0xA3030201,
    "gpr_esp": 0xA4030201,
    "gpr_ebp": 0xA5030201,
    "gpr_esi": 0xA6030201,
    "gpr_edi": 0xA7030201,
    "ip": 0x1234,
}


def relocator(src: int, dst: int, size: int) -> bytes:
    return TREE.load("i386/relocator_seed").bind({"src": src, "dst": dst, "len": size})


def test_relocator_is_the_patch_s_52_bytes() -> None:
    assert len(RELOCATOR) == 52
    assert relocator(0x600000, 0x100000, 0x500000) == RELOCATOR


@pytest.mark.parametrize(
    ("src", "dst", "size"),
    [
        (0x200000, 0x100000, 0x173A5F),  # where the patch itself puts a kernel
        (0x12345678, 0x9ABCDEF0, 0x0FEDCBA9),
        (0, 0, 1),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0x80000000, 0x7FFFFFFF, 0x7F),  # small or negative: still four bytes each
    ],
)
def test_relocator_with_other_operands(src: int, dst: int, size: int) -> None:
    expected = bytearray(RELOCATOR)
    for value, places in ((src, (22,)), (dst, (28, 46)), (size, (37,))):
        for place in places:
            expected[place : place + 4] = value.to_bytes(4, "little")
    assert relocator(src, dst, size) == expected


def test_boot_sector_is_generate_bootsect_s() -> None:
    bound = TREE.load("real/bootsect").bind(STATE)
    assert bound == BOOT_SECTOR + bytes(510 - len(BOOT_SECTOR)) + b"\x55\xaa"


def test_boot_sector_keeps_the_disk_s_own_partition_table() -> None:
    bound = TREE.load("real/bootsect").bind(STATE)
    disk = bytes(range(256)) * 2
    written = keep_disk_own(bound, disk)
    assert written[: len(BOOT_SECTOR)] == BOOT_SECTOR
    assert written[len(BOOT_SECTOR) : 0x1B8] == bytes(0x1B8 - len(BOOT_SECTOR))
    assert written[0x1B8:0x1FE] == disk[0x1B8:0x1FE]  # the signature and the partition table
    assert written[0x1FE:] == b"\x55\xaa"
    assert len(written) == 512
