; SPDX-License-Identifier: MIT
;
; relocator.asm - moves a kernel's protected-mode part to where it must run and starts it
;
; Entered as the setup header's code32_start hook, by a jump from the kernel's own setup code just
; after the switch to protected mode; or by asm/real/early.asm, before the setup code runs.
;
; enter     protected32             paging off, IF clear, only CS loaded
; in        esi                     boot_params, physical address
; reads     src  address 0..0xffffffff  where the loader put the protected-mode part
; reads     dst  address 0..0xffffffff  where it must run
; reads     len  bytes   0..0xffffffff  its size
; reads     code32_start address 0..0xffffffff  what the field held before the hook; the entry
; needs     src+len <= 0x100000000 and dst+len <= 0x100000000
; needs     dst+len <= $$ or dst >= $$+128      it must not lie in its own way
; writes    dst..dst+len            the kernel
; writes    esi+0x214..esi+0x218    boot_params.code32_start
; moves     src..src+len dst
; stores    esi+0x214..esi+0x218 code32_start
; preserves esp ebp esi edi
; clobbers  eax ecx edx ebx
; leaves    code32_start  ebx=0 cs=0x10 ds=0x18 es=0x18 fs=0x18 gs=0x18 ss=0x18 df=0 if=0
; limit     128
;
; It never touches the stack: %esp is the kernel's, and a hook cannot know whether it is usable.

%include "bootproto.inc"

bits 32

extern src
extern dst
extern len
extern code32_start

section .text

    cld
    cli
    mov eax, __BOOT_DS
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax

    ; The string instructions need %esi and %edi, which are the kernel's: keep them in registers
    ; that the protocol lets a hook spoil.
    mov ebx, esi
    mov edx, edi

    mov esi, strict dword src
    mov edi, strict dword dst
    mov ecx, strict dword len

    ; Copying upwards is wrong only if dst lies inside src..src+len: what is read later would have
    ; been written over. As an unsigned difference, dst - src is below len just then.
    mov eax, edi
    sub eax, esi
    cmp eax, ecx
    mov eax, ecx                ; MOV keeps the flags
    jb .downwards

    shr ecx, 2                  ; dwords, then the 0 to 3 bytes behind them
    rep movsd
    mov ecx, eax
    and ecx, 3
    rep movsb
    jmp .moved

.downwards:
    std
    lea esi, [esi + ecx - 1]    ; the last byte of each
    lea edi, [edi + ecx - 1]
    and ecx, 3                  ; the 0 to 3 bytes at the end, then the dwords before them
    rep movsb
    sub esi, 3                  ; from a dword's last byte to its first
    sub edi, 3
    mov ecx, eax
    shr ecx, 2
    rep movsd
    cld

.moved:
    mov esi, ebx
    mov edi, edx

    ; A kernel may find itself by this field (memtest86+ does), so it gets back what it had.
    mov eax, strict dword code32_start
    mov [esi + boot_params.code32_start], eax

    xor ebx, ebx
    jmp eax
