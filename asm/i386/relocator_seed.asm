; SPDX-License-Identifier: MIT
;
; relocator_seed.asm - the helper of the 2007 patch, instruction for instruction
;
; Entered as the setup header's code32_start hook. With the patch's operands it binds to the
; patch's own 52 bytes: the golden test of the whole chain, and the baseline of the benchmark.
; What ships is relocator.asm; this one copies upwards only, a byte at a time, and leaves the
; hooked code32_start in boot_params.
;
; enter     protected32             paging off, IF clear, only CS loaded
; in        esi                     boot_params, physical address
; reads     src  address 0..0xffffffff  where the loader put the protected-mode part
; reads     dst  address 0..0xffffffff  where it must run
; reads     len  bytes   1..0xffffffff  its size; 0 would copy 4 GiB
; needs     dst <= src or dst >= src+len    it copies upwards
; needs     src+len <= 0x100000000 and dst+len <= 0x100000000
; needs     dst+len <= $$ or dst >= $$+52       it must not lie in its own way
; writes    dst..dst+len            the kernel
; moves     src..src+len dst
; preserves esp ebp esi edi
; clobbers  eax ecx edx ebx
; leaves    dst  ebx=0 cs=0x10 ds=0x18 es=0x18 fs=0x18 gs=0x18 ss=0x18 df=0 if=0
; limit     52

%include "bootproto.inc"

bits 32

extern src
extern dst
extern len

section .text

    cld
    cli
    mov eax, __BOOT_DS
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    xor edx, edx

.byte:
    movzx eax, byte [dword edx + src]
    mov [dword edx + dst], al
    add edx, byte 1
    cmp edx, strict dword len
    jne .byte

    xor ebx, ebx
    mov ecx, strict dword dst
    jmp ecx
