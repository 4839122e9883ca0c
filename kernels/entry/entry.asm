; SPDX-License-Identifier: MIT
;
; entry.asm - a boot sector that enters a kernel's protected-mode part at one of its entries
;
; The least that a loader does by boot.rst's "32-bit Boot Protocol" and "64-bit Boot Protocol": for
; kernels whose other parts QEMU has put into RAM (-device loader). With page tables of nothing but
; the ranges asked for, so that a kernel which touches more does not get away with it.
;     nasm -f bin -I asm/include/ -DENTRY=0x100000 -DRSI=0x90000 -o entry.bin \
;         kernels/entry/entry.asm
;
; entered: 16-bit real mode, by a BIOS, at 0x7c00
; in: nothing
; writes: its stack, below 0x7c00; page tables from PAGE_TABLES on, below RSI
; leaves: to ENTRY with interrupts off, flags 2, esi = RSI, cs 0x10, ds = es = ss = 0x18; 32-bit:
;     esp = 0x7c00, ebp = edi = ebx = 0; 64-bit: rax = ENTRY, every other
;     register but rsi holds the number of its encoding in each byte (rcx 0x0101..., rsp
;     0x0404..., r15 0x0f0f...), so there is no stack; paging by PAGE_SHIFT and LEVELS. fs and gs
;     hold 0
; limit: 440 bytes of code. MAP0.. below 4 GiB; ENTRY and RSI too with 32 bits. The page of 0x7c00,
;     where the code runs that turns paging on, is always mapped
;
; The defines:
;     ENTRY            address of the entry
;     RSI              boot_params
;     BITS             32 or 64.                                                     Default 32
;     MAP0..MAP3       first addresses of ranges to map, 64-bit only.                Default none
;     MAP0_END..       the addresses behind them
;     MAP0_TO..        where they are mapped to, in steps of a page.        Default: to themselves
;     PAGE_SHIFT       log2 of a page's size, 12, 21 or 30 (needs such a CPU).       Default 12
;     LEVELS           of page tables, 4 or 5 (needs such a CPU).                    Default 4
;     HIGH_TABLE       a table that is in memory already, for the top table's first entry instead
;                      of what MAP0.. ask for; it must map 0x7c00.                   Default none

%include "bootproto.inc"
%include "bootsector.inc"

%ifndef BITS
  %define BITS 32
%endif
%ifndef PAGE_SHIFT
  %define PAGE_SHIFT 12
%endif
%ifndef LEVELS
  %define LEVELS 4
%endif
%if BITS != 32 && BITS != 64
  %fatal "BITS" is BITS: must be 32 or 64
%endif
%if PAGE_SHIFT != 12 && PAGE_SHIFT != 21 && PAGE_SHIFT != 30
  %fatal "PAGE_SHIFT" is PAGE_SHIFT: must be 12, 21 or 30
%endif
%if LEVELS != 4 && LEVELS != 5
  %fatal "LEVELS" is LEVELS: must be 4 or 5
%endif

LOAD_ADDRESS            equ 0x7c00      ; where a BIOS puts a boot sector
PORT_92                 equ 0x92        ; "fast A20", which QEMU has; bit 1 opens the gate
PORT_92_A20             equ 0x02
FLAGS                   equ 0x02        ; the bit that is always set

CR0_PE                  equ 1 << 0
CR0_PG                  equ 1 << 31
CR4_PAE                 equ 1 << 5
CR4_LA57                equ 1 << 12
MSR_EFER                equ 0xc0000080
EFER_LME                equ 1 << 8

PAGE_TABLES             equ 0x10000
PAGE_TABLES_SIZE        equ 0x40000     ; four to a range and more
TABLE_SIZE              equ 0x1000
PAGE_SIZE               equ 1 << PAGE_SHIFT
PTE_TABLE               equ 0x03        ; present, writable
%if PAGE_SHIFT > 12
PTE_PAGE                equ 0x83        ; and a page where a table could be
%else
PTE_PAGE                equ 0x03
%endif
TOP_SHIFT               equ 12 + (LEVELS - 1) * 9
INDEX_MASK              equ 0x1ff

; map N: a range for map_ranges, if it is asked for.
%macro map 1
  %ifdef MAP%1
        dd      MAP%1, MAP%1_END
    %ifdef MAP%1_TO
        dd      MAP%1_TO - MAP%1
    %else
        dd      0
    %endif
  %endif
%endmacro

        bits    16
        org     LOAD_ADDRESS

start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     fs, ax
        mov     gs, ax
        jmp     0:.at_home
.at_home:
        in      al, PORT_92
        or      al, PORT_92_A20
        out     PORT_92, al
        lgdt    [gdt_register]
        mov     eax, cr0
        or      al, CR0_PE
        mov     cr0, eax
        jmp     CODE_32:flat

        bits    32

flat:
        mov     eax, __BOOT_DS
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, LOAD_ADDRESS
%if BITS == 32
        xor     ebp, ebp
        mov     edi, ebp
        mov     ebx, ebp
        mov     esi, RSI
        push    FLAGS
        popfd
        jmp     __BOOT_CS:ENTRY
%else
        call    map_ranges
  %ifdef HIGH_TABLE
        mov     dword [PAGE_TABLES], HIGH_TABLE & 0xffffffff | PTE_TABLE
        mov     dword [PAGE_TABLES + 4], HIGH_TABLE >> 32
  %endif
        mov     eax, CR4_PAE | CR4_LA57 * (LEVELS - 4)
        mov     cr4, eax
        mov     eax, PAGE_TABLES
        mov     cr3, eax
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_LME
        wrmsr
        push    0                               ; popfq takes 8 bytes
        push    FLAGS
        mov     eax, cr0
        or      eax, CR0_PG
        mov     cr0, eax
        jmp     __BOOT_CS:enter_64

        bits    64

enter_64:
        popfq
        mov     rcx, 0x0101010101010101         ; the same in each byte: one that is cut off shows
        lea     rdx, [rcx + rcx]
        lea     rbx, [rdx + rcx]
        lea     rsp, [rbx + rcx]
        lea     rbp, [rsp + rcx]
        lea     rdi, [rbp + rdx]
        lea     r8, [rdi + rcx]
        lea     r9, [r8 + rcx]
        lea     r10, [r9 + rcx]
        lea     r11, [r10 + rcx]
        lea     r12, [r11 + rcx]
        lea     r13, [r12 + rcx]
        lea     r14, [r13 + rcx]
        lea     r15, [r14 + rcx]
        mov     rsi, RSI
        mov     rax, ENTRY
        jmp     rax                             ; above 4 GiB no other jump gets there

        bits    32

; map_ranges: makes page tables for all of `ranges`.
; In:       flat segments, a stack
; Out:      PAGE_TABLES
; Clobbers: everything
map_ranges:
        mov     edi, PAGE_TABLES
        mov     ecx, PAGE_TABLES_SIZE / 4
        xor     eax, eax
        rep     stosd
        mov     ebp, PAGE_TABLES + TABLE_SIZE   ; the next table to take
        mov     edx, ranges
.range:
        mov     esi, [edx]
        and     esi, -PAGE_SIZE
.page:
        mov     edi, PAGE_TABLES
        mov     cl, TOP_SHIFT
.table:                                         ; edi = table, cl = where its index is in esi
        xor     eax, eax
        cmp     cl, 32
        jae     .have_index
        mov     eax, esi
        shr     eax, cl
        and     eax, INDEX_MASK
.have_index:
        lea     ebx, [edi + eax * 8]
        cmp     cl, PAGE_SHIFT
        je      .entry
        mov     edi, [ebx]
        and     edi, -TABLE_SIZE
        jnz     .deeper
        mov     edi, ebp
        add     ebp, TABLE_SIZE
        lea     eax, [edi + PTE_TABLE]
        mov     [ebx], eax
.deeper:
        sub     cl, 9
        jmp     .table
.entry:
        mov     eax, [edx + 8]
        lea     eax, [eax + esi + PTE_PAGE]
        mov     [ebx], eax
        add     esi, PAGE_SIZE
        cmp     esi, [edx + 4]
        jb      .page
        add     edx, 12
        cmp     edx, ranges.end
        jb      .range
        ret

ranges:                                         ; first address, end, what to add
        dd      LOAD_ADDRESS, LOAD_ADDRESS + 1, 0
        map     0
        map     1
        map     2
        map     3
.end:
%endif

        align   8, db 0
CODE_32                 equ 0x08                ; the protocol does not use it
gdt:
        dq      0
        dq      0x00cf9b000000ffff              ; CODE_32: code, base 0, limit 4 GiB, 32-bit
%if BITS == 32
        dq      0x00cf9b000000ffff              ; __BOOT_CS: the same
%else
        dq      0x00af9b000000ffff              ; __BOOT_CS: 64-bit
%endif
        dq      0x00cf93000000ffff              ; __BOOT_DS: data, base 0, limit 4 GiB
.end:
gdt_register:
        dw      gdt.end - gdt - 1
        dd      gdt

        boot_sector_end start
