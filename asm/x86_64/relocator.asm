; SPDX-License-Identifier: MIT
;
; relocator.asm - moves a kernel's protected-mode part to where it must run and starts it
;
; The 64-bit twin of i386/relocator.asm: entered in place of the kernel's 64-bit entry, by a loader
; or by the head of the image. Such a loader maps the kernel where it put it, and little else, so
; the kernel's page tables are made here, before anything is moved.
;
; On entry these are mapped, address for address, and nothing else need be: the relocator itself,
; src..src+len, tables..tables+tables_size, boot_params (4 KiB), the command line, the GDT. On
; leaving so are all of the low 4 GiB and, wherever they lie, those, dst..dst+len and
; dst..dst+init_size: pages of 2 MiB, present and writable. Of the command line that is 64 KiB from
; boot_params' ext_cmd_line_ptr:cmd_line_ptr on. CR3 is then `tables`.
;
; `tables` is page-aligned and `tables_size` a multiple of 4096; longmode.py has how much is enough.
; Should it not be, nothing behind it is written: the CPU stops in a `pause` loop instead.
; Nothing lies at or above 2^47: not what is below, not what boot_params or the GDTR tell of. The
; command line and the GDT lie neither in dst..dst+len nor in the tables.
;
; enter     long64                  paging on, IF clear, cs=0x10 and no other selector loaded
; in        rsi                     boot_params, physical address
; reads     src  address 0..0x7fffffffffff  where the loader put the protected-mode part
; reads     dst  address 0..0x7fffffffffff  where it must run
; reads     len  bytes   0..0x7fffffffffff  its size
; reads     init_size bytes 0..0xffffffff  the kernel's memory from dst on, once it runs
; reads     entry address 0..0x7fffffffffff  its 64-bit entry, mostly dst+0x200
; reads     code32_start address 0..0xffffffff  what the field held before the hook
; reads     tables address 0..0x7ffffffff000  memory for page tables
; reads     tables_size bytes 0x1000..0x7ffff000
; needs     src+len <= 0x800000000000 and dst+len <= 0x800000000000
; needs     dst+init_size <= 0x800000000000 and tables+tables_size <= 0x800000000000
; needs     entry < 0x100000000 or entry >= dst and (entry < dst+len or entry < dst+init_size)
; needs     dst+len <= $$ or dst >= $$+768      it must not lie in its own way
; needs     tables+tables_size <= $$ or tables >= $$+768
; needs     tables+tables_size <= src or tables >= src+len
; needs     tables+tables_size <= dst or tables >= dst+len and tables >= dst+init_size
; needs     tables+tables_size <= rsi or tables >= rsi+0x1000
; needs     rsi+0x1000 <= dst or rsi >= dst+len
; writes    dst..dst+len            the kernel
; writes    rsi+0x214..rsi+0x218    boot_params.code32_start
; writes    tables..tables+tables_size  and, for a moment, the GDTR in the first page of them
; moves     src..src+len dst
; stores    rsi+0x214..rsi+0x218 code32_start
; preserves rsp rbp rsi rdi
; clobbers  rax rcx rdx rbx r8 r9 r10 r11 r12 r13 r14 r15
; leaves    entry  rbx=0 cs=0x10 ds=0x18 es=0x18 fs=0x18 gs=0x18 ss=0x18 df=0 if=0
; limit     768
;
; It never touches the stack: %rsp is the loader's, and nobody has said that it is usable.

%include "bootproto.inc"
%include "zeropage.inc"
%include "identity.inc"

bits 64

extern src
extern dst
extern len
extern init_size
extern entry
extern code32_start
extern tables
extern tables_size

section .text

relocator:
    cld
    cli
    mov eax, __BOOT_DS
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax

    mov r8, strict qword tables
    mov r10d, strict dword tables_size
    add r10, r8
    identity_call identity_begin
    identity_call identity_kernel

    lea rax, [rel relocator]
    lea rdx, [rel identity_end] ; which is its own, too
    identity_call identity_map

    mov rax, r8
    mov rdx, r10
    identity_call identity_map

    mov rax, strict qword src
    mov rdx, strict qword len
    add rdx, rax
    identity_call identity_map

    mov rax, strict qword dst
    mov rdx, strict qword len
    mov ecx, strict dword init_size
    cmp rdx, rcx
    jae .longer                 ; a kernel's .bss lies behind what there is of it
    mov rdx, rcx
.longer:
    add rdx, rax
    identity_call identity_map

    identity_call identity_enter

    ; The string instructions need %rsi and %rdi, which stay as they were.
    mov rbx, rsi
    mov rdx, rdi

    mov rsi, strict qword src
    mov rdi, strict qword dst
    mov rcx, strict qword len

    ; Copying upwards is wrong only if dst lies inside src..src+len: what is read later would have
    ; been written over. As an unsigned difference, dst - src is below len just then.
    mov rax, rdi
    sub rax, rsi
    cmp rax, rcx
    mov rax, rcx                ; MOV keeps the flags
    jb .downwards

    shr rcx, 3                  ; qwords, then the 0 to 7 bytes behind them
    rep movsq
    mov ecx, eax
    and ecx, 7
    rep movsb
    jmp .moved

.downwards:
    std
    lea rsi, [rsi + rcx - 1]    ; the last byte of each
    lea rdi, [rdi + rcx - 1]
    and ecx, 7                  ; the 0 to 7 bytes at the end, then the qwords before them
    rep movsb
    sub rsi, 7                  ; from a qword's last byte to its first
    sub rdi, 7
    mov rcx, rax
    shr rcx, 3
    rep movsq
    cld

.moved:
    mov rsi, rbx
    mov rdi, rdx

    ; A kernel may find itself by this field, so it gets back what it had.
    mov dword [rsi + boot_params.code32_start], strict dword code32_start

    mov rax, strict qword entry
    xor ebx, ebx
    jmp rax
