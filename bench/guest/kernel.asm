; SPDX-License-Identifier: MIT
;
; kernel.asm - the kernel whose loading `make bench` times: checks what was loaded and ends QEMU
;
; A bzImage of protocol 2.15 with the header of a distribution's kernel: relocatable, preferred
; at 16 MiB, its init_size several times its size. This source makes its code; bench/inputs.py puts
; the rest of the protected-mode part behind it, 512-byte blocks of the pattern, up to PM_SIZE:
;     nasm -f bin -I asm/include/ -DPM_SIZE=... -DINITRD_SIZE=... -D... bench/guest/kernel.asm
;
; entered: by a boot loader, 16-bit, at real-mode segment + 0x20:0; or by the 32-bit boot protocol
;     at the protected-mode part's first byte, wherever that is (GRUB's `linux` does so)
; in: esi = boot_params at the 32-bit entry; A20 on
; reads: boot_params, its own protected-mode part, the initrd
; writes: the setup part's GDT pointer and far pointer; boot_params' scratch field
; leaves: through isa-debug-exit (`-device isa-debug-exit,iobase=0xf4,iosize=4`): QEMU's status is
;     2 * one of the EXIT_* below + 1
; limit: CODE_SIZE bytes of 32-bit code; needs a 386
;
; The defines, none optional. bench/inputs.py has their values and makes the blocks with them:
;     PM_SIZE          bytes of the protected-mode part, a multiple of 512
;     INITRD_SIZE      bytes of the initrd that there may be, a multiple of 512
;     INIT_SIZE        bytes that the header says it needs from where it runs
;     BLOCK_FACTOR     every dword of block n is n * BLOCK_FACTOR + *_SEED
;     KERNEL_SEED      for the protected-mode part; n counts from its first byte
;     INITRD_SEED      for the initrd

%include "bootproto.inc"

BLOCK                   equ 512
CODE_SIZE               equ 512         ; of the 32-bit code; the pattern begins behind it
SETUP_SECTS             equ 2
PROTOCOL                equ 0x20f
PREF_ADDRESS            equ 0x1000000
KERNEL_ALIGNMENT        equ 0x200000
MIN_ALIGNMENT           equ 21          ; log2 of bytes
INITRD_ADDR_MAX         equ 0x7fffffff
CMDLINE_SIZE            equ 2047
VID_MODE_NORMAL         equ 0xffff
SETUP_MOVE_SIZE         equ 0x8000
PARAGRAPH               equ 16
CR0_PE                  equ 1

; boot_params' scratch: the one dword that a 32-bit entry may use as a stack, as Linux's does.
SCRATCH                 equ 0x1e4

EXIT_PORT               equ 0xf4
EXIT_KERNEL             equ 0x10        ; kernel right, and there is no initrd
EXIT_WITH_INITRD        equ 0x11        ; kernel and initrd right
EXIT_WRONG_KERNEL       equ 0x12        ; a block of the kernel is not the one that belongs there
EXIT_WRONG_SIZE         equ 0x13        ; the initrd has another size than INITRD_SIZE
EXIT_WRONG_INITRD       equ 0x14        ; a block of the initrd is not the one that belongs there

; A flat segment: base 0, limit 4 GiB, 32-bit, ring 0, present.
%macro flat_descriptor 1                ; access byte
        dw      0xffff, 0
        db      0, %1, 0xcf, 0
%endmacro
ACCESS_CODE             equ 0x9b        ; present, code, readable, accessed
ACCESS_DATA             equ 0x93        ; present, data, writable, accessed

; Puts DATA at the offset of the header's field NAME; what lies between is zero.
%macro header_field 2+
        times boot_params.%1 - ($ - $$) db 0
        %2
%endmacro

        org     0
        bits    16

boot_sector:
        jmp     short $                         ; no BIOS gets here: there is always a loader

        header_field setup_sects,           db SETUP_SECTS
        header_field root_flags,            dw 1
        header_field syssize,               dd PM_SIZE / PARAGRAPH
        header_field vid_mode,              dw VID_MODE_NORMAL
        header_field boot_flag,             dw BOOT_FLAG
        header_field jump,                  jmp short setup
        header_field header,                dd HEADER_MAGIC
        header_field version,               dw PROTOCOL
        header_field start_sys_seg,         dw ZIMAGE_LOAD_ADDRESS / PARAGRAPH
        header_field kernel_version,        dw version_text - SETUP_ENTRY_PARAGRAPHS * PARAGRAPH
        header_field loadflags,             db LOADED_HIGH
        header_field setup_move_size,       dw SETUP_MOVE_SIZE
        header_field code32_start,          dd BZIMAGE_LOAD_ADDRESS
        header_field heap_end_ptr,          dw SETUP_SECTS * BLOCK
        header_field initrd_addr_max,       dd INITRD_ADDR_MAX
        header_field kernel_alignment,      dd KERNEL_ALIGNMENT
        header_field relocatable_kernel,    db 1
        header_field min_alignment,         db MIN_ALIGNMENT
        header_field cmdline_size,          dd CMDLINE_SIZE
        header_field pref_address,          dq PREF_ADDRESS
        header_field init_size,             dd INIT_SIZE
        header_field kernel_info_offset,    dd kernel_info - protected

; Goes to the 32-bit entry by code32_start, so a hook in there is heeded.
; In: cs = real-mode segment + SETUP_ENTRY_PARAGRAPHS
; Out: esi = linear address of the real-mode part, as boot_params
setup:
        cli
        mov     ax, cs
        sub     ax, SETUP_ENTRY_PARAGRAPHS
        mov     ds, ax
        movzx   esi, ax
        shl     esi, 4
        lea     eax, [esi + gdt]
        mov     [gdt_pointer + 2], eax
        mov     eax, [boot_params.code32_start]
        mov     [entry_pointer], eax
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, CR0_PE
        mov     cr0, eax
        jmp     dword far [entry_pointer]

        align   8, db 0
gdt:
        dq      0, 0                            ; the CPU's null descriptor; 0x08 is unused
        flat_descriptor ACCESS_CODE             ; __BOOT_CS
        flat_descriptor ACCESS_DATA             ; __BOOT_DS
.end:
gdt_pointer:
        dw      gdt.end - gdt - 1
        dd      0                               ; linear address
entry_pointer:
        dd      0
        dw      __BOOT_CS

version_text:
        db      "bootsplice bench kernel", 0

        times   (SETUP_SECTS + 1) * BLOCK - ($ - $$) db 0

; ---- The protected-mode part ------------------------------------------------------------------

        bits    32

; Checks the kernel and the initrd, and ends QEMU.
; In: esi = boot_params
protected:
        mov     eax, __BOOT_DS
        mov     ds, eax
        mov     ss, eax
        cld
        lea     esp, [esi + SCRATCH + 4]
        call    .here
.here:
        pop     edi
        add     edi, protected.end - .here      ; the first block of the pattern
        mov     ecx, (PM_SIZE - CODE_SIZE) / BLOCK
        mov     eax, (CODE_SIZE / BLOCK * BLOCK_FACTOR + KERNEL_SEED) & 0xffffffff
        mov     bl, EXIT_WRONG_KERNEL
        call    check

        mov     bl, EXIT_KERNEL
        mov     ecx, [esi + boot_params.ramdisk_size]
        jecxz   exit
        mov     bl, EXIT_WRONG_SIZE
        cmp     ecx, INITRD_SIZE
        jne     exit
        shr     ecx, 9                          ; blocks
        mov     edi, [esi + boot_params.ramdisk_image]
        mov     eax, INITRD_SEED
        mov     bl, EXIT_WRONG_INITRD
        call    check
        mov     bl, EXIT_WITH_INITRD

; Ends QEMU. In: bl = EXIT_*
exit:
        mov     al, bl
        out     EXIT_PORT, al
.halt:
        hlt                                     ; there is no such device
        jmp     short .halt

; Checks the first and the last dword of each block: a sector that is missing, that is there twice
; or that changed places shows, and so does a copy that goes wrong within one.
; In: edi = first block, ecx = blocks, at least 1, eax = what it holds, bl = EXIT_* if it is wrong
; Out: only if all are right
; Clobbers: eax, ecx, edi, flags
check:
        cmp     [edi], eax
        jne     exit
        cmp     [edi + BLOCK - 4], eax
        jne     exit
        add     edi, BLOCK
        add     eax, BLOCK_FACTOR
        dec     ecx
        jnz     check
        ret

        align   4, db 0
kernel_info:                                    ; its form since protocol 2.15
        db      "LToP"
        dd      .end - kernel_info              ; size
        dd      .end - kernel_info              ; and that of all its data
        dd      0                               ; setup_type_max
.end:

        times   CODE_SIZE - ($ - protected) db 0
protected.end:
