; SPDX-License-Identifier: MIT
;
; floppy.asm - a 1.44 MB floppy image that says it booted: memdisk's initrd
;
; A real floppy as far as a BIOS can tell. Its boot sector reads the image's last sector through
; int 13h, which memdisk must serve from the initrd, and reports on COM1, one `key=value` a line.
;
; entered: 16-bit real mode, by a BIOS or memdisk, at 0:0x7c00
; in: dl = the drive that it was booted from
; writes: 0x7e00..0x8000, the sector that it reads; the stack below 0x7c00
; leaves: through isa-debug-exit (QEMU's status is 33 if the sector is right, 35 if not); without
;     that device it halts
; limit: 510 bytes of code

LOAD_ADDRESS            equ 0x7c00      ; where a BIOS puts a boot sector
BUFFER                  equ 0x7e00
BOOT_FLAG               equ 0xaa55
SECTOR_SIZE             equ 512
SECTORS_PER_TRACK       equ 18          ; of a 1.44 MB floppy
HEADS                   equ 2
CYLINDERS               equ 80
BIOS_READ_SECTORS       equ 0x0201      ; int 13h AX: read, one sector
COM1_DATA               equ 0x3f8
COM1_LINE_CONTROL       equ 0x3fb
LINE_CONTROL_8N1        equ 0x03        ; some BIOSes leave 5 bits a character
COM1_LINE_STATUS        equ 0x3fd
LINE_STATUS_THR_EMPTY   equ 0x20
DEBUG_EXIT              equ 0xf4        ; isa-debug-exit's port
DEBUG_EXIT_SUCCESS      equ 0x10        ; QEMU exits with 2 * this + 1
DEBUG_EXIT_FAILURE      equ 0x11

bits 16
org LOAD_ADDRESS

start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, LOAD_ADDRESS
    cld
    push dx                             ; the drive
    mov dx, COM1_LINE_CONTROL
    mov al, LINE_CONTROL_8N1
    out dx, al
    mov si, text_booted
    call say
    pop dx

    mov ax, BIOS_READ_SECTORS
    mov cx, ((CYLINDERS - 1) << 8) | SECTORS_PER_TRACK
    mov dh, HEADS - 1
    mov bx, BUFFER
    int 0x13
    jc .wrong
    mov si, BUFFER
    mov di, last_sector_text
    mov cx, last_sector_text.end - last_sector_text
    repe cmpsb
    jne .wrong
    mov si, text_right
    call say
    mov ax, DEBUG_EXIT_SUCCESS
    jmp .leave
.wrong:
    mov si, text_wrong
    call say
    mov ax, DEBUG_EXIT_FAILURE
.leave:
    out DEBUG_EXIT, ax
.halt:
    cli
    hlt
    jmp .halt

; say: a text on COM1.
; In:       ds:si = text, ends with 0
; Out:      nothing
; Clobbers: ax, dx, si, flags
say:
    lodsb
    test al, al
    jz .done
    mov ah, al
    mov dx, COM1_LINE_STATUS
.wait:
    in al, dx                           ; no port at all reads 0xff: ready
    test al, LINE_STATUS_THR_EMPTY
    jz .wait
    mov al, ah
    mov dx, COM1_DATA
    out dx, al
    jmp say
.done:
    ret

text_booted:
    db "floppy=bootsplice", 13, 10, 0
text_right:
    db "last_sector=right", 13, 10, "end=ok", 13, 10, 0
text_wrong:
    db "last_sector=wrong", 13, 10, 0

; What the last sector begins with; here to compare it to.
last_sector_text:
    db "the last sector of the floppy"
.end:

    times SECTOR_SIZE - 2 - ($ - start) db 0
    dw BOOT_FLAG

    times (CYLINDERS * HEADS * SECTORS_PER_TRACK - 1) * SECTOR_SIZE - ($ - start) db 0xf6
    db "the last sector of the floppy"
    times CYLINDERS * HEADS * SECTORS_PER_TRACK * SECTOR_SIZE - ($ - start) db 0
