; SPDX-License-Identifier: MIT
;
; early.asm - has the relocator move the kernel before its setup code runs
;
; For kernels whose setup code never looks at code32_start (memdisk, iPXE), and for zImages, which
; setup code itself moves on: they must lie where they run before it is entered. bootsect.asm jumps
; here instead of into the setup code. This stage enters protected mode, jumps to relocator.asm,
; gets control back at `moved` (the relocator's code32_start), returns to real mode and enters the
; setup code with the registers that it was given itself.
;
; enter     real16                  at segment:0, by bootsect.asm
; in        esp                     ss:sp is the stack of the setup code; the BIOS may use it, too
; reads     relocator address 0..0xffffffff  relocator.asm, bound to return to `moved`
; reads     setup_cs value 0..0xffff  the setup code's segment; it is entered at offset 0
; needs     esp >= 512 and esp <= 0xffff
; writes    ss*16+esp-512..ss*16+esp
; writes    0x500..0x501            the A20 test; put back
; writes    $$..$$+512              its own descriptors, and the dword that the relocator writes
; preserves eax ecx edx ebx esp ebp esi edi
; leaves    setup_cs:0  ds=ds es=es fs=fs gs=gs ss=ss cs=setup_cs df=0 if=0
; limit     512

%include "bootproto.inc"

CR0_PE                  equ 1
EARLY_CS16              equ 0x20        ; behind the boot protocol's own two selectors
EARLY_DS16              equ 0x28
DESCRIPTOR_BASE_LOW     equ 2           ; offset of base bits 0 to 15 in a descriptor
DESCRIPTOR_BASE_MIDDLE  equ 4           ; of base bits 16 to 23
JMP_FAR                 equ 0xea        ; the instruction; NASM's ELF formats have no segment
JMP_FAR_SEGMENT         equ 3           ; relocations, so it is written out: offset, segment
CMOS_INDEX              equ 0x70        ; bit 7 of this port masks the NMI
CMOS_DATA               equ 0x71        ; to be read after each write to the index
NMI_MASKED              equ 0x80

bits 16

extern relocator
extern setup_cs

global moved

section .text

early:
    cli
    cld
    push ds
    push es
    push fs
    push gs
    pushad

    call a20_enable
    cli                                 ; the BIOS may have opened the gate with interrupts on
    jz .shut

    ; The way back to real mode passes a 16-bit code segment that begins here.
    xor eax, eax
    mov ax, cs
    shl eax, 4
    mov [cs:gdt.cs16 + DESCRIPTOR_BASE_LOW - early], ax
    shr eax, 16
    mov [cs:gdt.cs16 + DESCRIPTOR_BASE_MIDDLE - early], al
    mov [cs:moved.back + JMP_FAR_SEGMENT - early], cs

    ; The relocator preserves %esp, %ebp and %edi: %di keeps the stack's segment meanwhile.
    mov di, ss

    mov al, NMI_MASKED                  ; the BIOS's handler is no good in protected mode
    out CMOS_INDEX, al
    in al, CMOS_DATA

    o32 lgdt [cs:gdt_register - early]
    mov eax, cr0
    or al, CR0_PE
    mov cr0, eax
    jmp dword __BOOT_CS:protected

.shut:
    mov si, message_a20 - early
    jmp fail

.real:
    mov ss, di
    xor al, al
    out CMOS_INDEX, al
    in al, CMOS_DATA
    popad
    pop gs
    pop fs
    pop es
    pop ds
    db JMP_FAR
    dw 0
    dw setup_cs

bits 32
protected:
    ; The relocator puts code32_start back into boot_params. The header's own was never changed,
    ; and an old kernel has code there: give it a boot_params of which we have just that dword.
    mov esi, strict dword returns_to - boot_params.code32_start
    mov eax, strict dword relocator
    jmp eax

; moved: back to real mode, and into the setup code.
; In:       di = ss of the setup code, esp = its stack as this stage was left
; Out:      does not return
; Clobbers: everything
moved:
    ; Segments with real mode's limits, or real mode would go on with 4 GiB ones.
    mov eax, EARLY_DS16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    jmp EARLY_CS16:.sixteen - early

bits 16
.sixteen:
    mov eax, cr0
    and al, ~CR0_PE & 0xff
    mov cr0, eax
.back:                                  ; at once: until a far jump %cs is not real mode's
    db JMP_FAR
    dw early.real - early
    dw 0                                ; filled in with the real-mode %cs

%include "a20.inc"
%include "fail.inc"

message_a20:
    db "bootsplice: the A20 gate stays shut: cannot move the kernel", 13, 10, 0

    align 8, db 0
gdt:
    dq 0
    dq 0                                ; the boot protocol's selectors begin at 0x10
    dq 0x00cf9b000000ffff               ; __BOOT_CS: code, base 0, limit 4 GiB, 32-bit
    dq 0x00cf93000000ffff               ; __BOOT_DS: data, base 0, limit 4 GiB
.cs16:
    dq 0x00009b000000ffff               ; EARLY_CS16: code, base of this stage, limit 64 KiB
    dq 0x000093000000ffff               ; EARLY_DS16: data, base 0, limit 64 KiB
.end:
gdt_register:
    dw gdt.end - gdt - 1
    dd gdt

returns_to:
    dd 0
