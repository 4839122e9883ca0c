; SPDX-License-Identifier: MIT
;
; head.asm - the 64-bit entry of an image that carries its relocator
;
; asm/i386/head.asm, at the protected-mode part's first byte, jumps here from 0x200, where the
; 64-bit boot protocol enters. All the work is in head.inc; what is different here: the image, the
; kernel's place or what the loader left may lie above 4 GiB.
;
; The image's first byte is at $$-start. Symbols with the unit bytes are sizes or distances from $$.
; What init_size in the header keeps free, from the image's first byte and from where the kernel
; runs, may be written.
;
; enter     long64                  paging on, IF clear; 0x10 and 0x18 are flat
; in        rsi                     boot_params, physical address
; reads     start bytes 0..0xffffff         from the image's first byte to $$
; reads     image_size bytes 1..0xffffffff  of the image in memory, with the built-in initrd
; reads     kernel bytes 1..0xffffffff      where the kernel is; below it lies the stack
; reads     len bytes 1..0xffffffff         the kernel's protected-mode part
; reads     follows value 0..1              1: the kernel is relocatable, runs where the image is
; reads     dst address 0..0xffffffff       where it must run; 0 if it follows
; reads     run address 0..0xffffffff       pref_address, if it follows
; reads     init_size bytes 1..0xffffffff   what it needs from where it runs
; reads     entry32 bytes 0..0xffffffff     from dst to the 32-bit entry, its own code32_start
; reads     entry64 bytes 0..0xffffffff     from dst to the 64-bit entry
; reads     work_size bytes 0x1000..0xffffffff    the work area
; reads     work_cmdline bytes 0x40..0xffffffff   where the command line is in it
; reads     work_tables bytes 0x1000..0xffffffff  where the page tables are in it
; reads     cmdline bytes 0..0xffffffff     the built-in command line
; reads     cmdline_length bytes 0..0xffff  of it without a NUL; 0: there is none
; reads     cmdline_room bytes 0..0xffffffff      of all of it, with the NUL
; reads     replace value 0..1              1: the loader's command line is not appended
; reads     initrd bytes 0..0xffffffff      the built-in initrd
; reads     initrd_size bytes 0..0xffffffff       of it; 0: there is none
; reads     initrd_addr_max address 0..0xffffffff highest address of its last byte
; reads     above_4g value 0..1             1: the kernel finds things above 4 GiB; xloadflags bit 1
; reads     saved bytes 0..0xffffffff       the kernel's own header: dwords, see SAVED_OFFSET
; reads     saved_count value 0..0xffff     how many
; reads     relocator bytes 0..0xffffffff   the relocator
; reads     relocator_size bytes 1..0xfff   of it
; reads     fixups bytes 0..0xffffffff      what to add to it: dwords, see FIXUP_OFFSET
; reads     fixup_count value 0..0xffff     how many
; writes    $$-start..$$-start+image_size+init_size+2*work_size+initrd_size+0x3000  the image's
; writes    run..run+init_size+work_size+initrd_size+0x3000  where the kernel runs
; writes    dst+follows*($$-start)..dst+follows*($$-start)+len  the kernel
; writes    rsi..rsi+0x1000         boot_params: header fields, command line, initrd
; preserves rsp rsi
; clobbers  rax rcx rdx r8 r9 r10 r11 r12 r13 r14 r15
; leaves    dst+follows*($$-start)+entry64  rbx=0 rbp=0 rdi=0 cs=0x10 ds=0x18 es=0x18 fs=0x18 gs=0x18 ss=0x18 df=0 if=0
; limit     0x1000

%include "bootproto.inc"
%include "com1.inc"
%include "zeropage.inc"
%include "identity.inc"

extern start
extern image_size
extern kernel
extern len
extern follows
extern dst
extern run
extern init_size
extern entry32
extern entry64
extern work_size
extern work_cmdline
extern work_tables
extern cmdline
extern cmdline_length
extern cmdline_room
extern replace
extern initrd
extern initrd_size
extern initrd_addr_max
extern above_4g
extern saved
extern saved_count
extern relocator
extern relocator_size
extern fixups
extern fixup_count

section .text

bits 64

    cld
    cli
    mov eax, __BOOT_DS
    mov ds, eax
    mov es, eax
    mov ss, eax
    lea rbp, [rel $$]
    mov edi, strict dword kernel
    add rdi, rbp
    mov [rbp + kernel_sp - $$], rsp
    mov rsp, rdi
    jmp head_main

; check_reachable: stops with a message if something for the kernel lies where it cannot find it.
; In:       rsi = boot_params
; Out:      nothing
; Clobbers: rax, rbx, flags
check_reachable:
    mov eax, strict dword above_4g
    test eax, eax
    jnz .done
    mov rax, rsi
    shr rax, 32
    or eax, [rsi + EXT_CMD_LINE_PTR]
    or eax, [rsi + EXT_RAMDISK_IMAGE]
    or eax, [rsi + EXT_RAMDISK_SIZE]
    lea rbx, [rbp + message_high - $$]
    jnz fail
.done:
    ret

; map_screen: maps VGA text memory, this code and its stack: the loader need not have mapped the
; first. The kernel is not going to run: the tables take its place, which is sure to be RAM. Only
; those of a kernel that is too small for that are in the work area.
; In:       rbp = this binary
; Out:      nothing
; Clobbers: rax, rcx, rdx, r8, r9, r10, r11, r12, r13, r15, flags
map_screen:
    push rbx
    mov r8d, strict dword kernel
    mov r10d, strict dword len
    mov ecx, strict dword work_size
    add r8, rbp
    cmp r10, rcx
    jae .placed
    mov r8, [rbp + work - $$]
    mov r10, rcx
.placed:
    add r10, r8
    add r8, HEAD_PAGE - 1
    and r8, -HEAD_PAGE
    and r10, -HEAD_PAGE
    identity_call identity_begin
    mov rax, rbp
    mov edx, strict dword kernel
    add rdx, rbp
    identity_call identity_map
    identity_call identity_enter
    pop rbx
    ret

message_high:
    db "bootsplice: boot_params, command line or initrd lie above 4 GiB, out of this kernel's "
    db "reach", 0

%include "head.inc"
