; SPDX-License-Identifier: MIT
;
; head.asm - the start of an image that carries its relocator: has the kernel moved, and starts it
;
; It takes the place of the protected-mode part's first byte. So it is entered by the kernel's own
; setup code through code32_start, and by every loader that jumps to where it loaded the
; protected-mode part (kexec, GRUB's linux, Limine, U-Boot, crosvm ...). At 0x200, where the 64-bit
; boot protocol enters, a jump leads to asm/x86_64/head.asm. All the work is in head.inc.
;
; The image's first byte is at $$-start. Symbols with the unit bytes are sizes or distances from $$.
; What init_size in the header keeps free, from the image's first byte and from where the kernel
; runs, may be written.
;
; enter     protected32             paging off, IF clear; 0x10 and 0x18 are flat, only CS is loaded
; in        esi                     boot_params, physical address
; reads     start bytes 0..0xffffff         from the image's first byte to $$
; reads     image_size bytes 1..0xffffffff  of the image in memory, with the built-in initrd
; reads     kernel bytes 1..0xffffffff      where the kernel is; below it lies the stack
; reads     len bytes 1..0xffffffff         the kernel's protected-mode part
; reads     follows value 0..1              1: the kernel is relocatable, runs where the image is
; reads     dst address 0..0xffffffff       where it must run; 0 if it follows
; reads     run address 0..0xffffffff       pref_address, if it follows
; reads     init_size bytes 1..0xffffffff   what it needs from where it runs
; reads     entry32 bytes 0..0xffffffff     from dst to the 32-bit entry, its own code32_start
; reads     work_size bytes 0x1000..0xffffffff    the work area
; reads     work_cmdline bytes 0x40..0xffffffff   where the command line is in it
; reads     cmdline bytes 0..0xffffffff     the built-in command line
; reads     cmdline_length bytes 0..0xffff  of it without a NUL; 0: there is none
; reads     cmdline_room bytes 0..0xffffffff      of all of it, with the NUL
; reads     replace value 0..1              1: the loader's command line is not appended
; reads     initrd bytes 0..0xffffffff      the built-in initrd
; reads     initrd_size bytes 0..0xffffffff       of it; 0: there is none
; reads     initrd_addr_max address 0..0xffffffff highest address of its last byte
; reads     saved bytes 0..0xffffffff       the kernel's own header: dwords, see SAVED_OFFSET
; reads     saved_count value 0..0xffff     how many
; reads     relocator bytes 0..0xffffffff   the relocator
; reads     relocator_size bytes 1..0xfff   of it
; reads     fixups bytes 0..0xffffffff      what to add to it: dwords, see FIXUP_OFFSET
; reads     fixup_count value 0..0xffff     how many
; reads     head64 address 0..0xffffffff    the 64-bit head's first byte
; needs     run+init_size+work_size+initrd_size+0x3000 <= 0x100000000
; writes    $$-start..$$-start+image_size+init_size+2*work_size+initrd_size+0x3000  the image's
; writes    run..run+init_size+work_size+initrd_size+0x3000  where the kernel runs
; writes    dst+follows*($$-start)..dst+follows*($$-start)+len  the kernel
; writes    esi..esi+0x1000         boot_params: header fields, command line, initrd, scratch
; preserves esp esi
; clobbers  eax ecx edx
; leaves    dst+follows*($$-start)+entry32  ebx=0 ebp=0 edi=0 cs=0x10 ds=0x18 es=0x18 fs=0x18 gs=0x18 ss=0x18 df=0 if=0
; limit     0x1000

%include "bootproto.inc"
%include "com1.inc"
%include "zeropage.inc"

extern start
extern image_size
extern kernel
extern len
extern follows
extern dst
extern run
extern init_size
extern entry32
extern work_size
extern work_cmdline
extern cmdline
extern cmdline_length
extern cmdline_room
extern replace
extern initrd
extern initrd_size
extern initrd_addr_max
extern saved
extern saved_count
extern relocator
extern relocator_size
extern fixups
extern fixup_count
extern head64

ENTRY_64                equ 0x200           ; where the 64-bit boot protocol enters

section .text

bits 32

    cld
    cli
    mov eax, __BOOT_DS
    mov ds, eax
    mov es, eax
    mov ss, eax

    ; Where this is only a CALL can tell, and nothing says that there is a stack: boot_params has a
    ; dword for this.
    mov edi, esp
    lea esp, [esi + SCRATCH + 4]
    call .here
.here:
    pop ebp
    sub ebp, .here - $$
    mov esp, strict dword kernel
    add esp, ebp
    mov [ebp + kernel_sp - $$], edi
    jmp head_main

    times ENTRY_64 - ($ - $$) db 0

bits 64
    jmp strict near head64

bits 32
%include "head.inc"
