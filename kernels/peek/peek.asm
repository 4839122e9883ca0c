; SPDX-License-Identifier: MIT
;
; peek.asm - a boot sector that says what is at 0x100000, then starts the boot sector behind it
;
; Sector 0 of a disk whose sector 1 is the boot sector that would be there otherwise. Says on screen
; and on COM1, as `at_100000=` and bytes in hexadecimal, what the memory holds at the moment that
; the firmware starts a boot sector: in a Xen HVM guest hvmloader's first instructions.
;
; entered: 16-bit real mode, by a BIOS, at 0x7c00, with the BIOS's stack
; in: dl = the drive that it was booted from
; writes: 0x600..0x806, itself and what it reads; the sector at 0x7c00; the stack
; preserves: all registers but cs and ip
; leaves: to 0:0x7c00 with sector 1 of the drive there, all else as the BIOS left it; on an error
;     of the BIOS it says so and halts
; limit: 440 bytes of code

%include "bootproto.inc"
%include "bootsector.inc"
%include "int13.inc"

LOAD_ADDRESS            equ 0x7c00      ; where a BIOS puts a boot sector
RUN_ADDRESS             equ 0x600       ; the first byte that is not the BIOS's; SeaBIOS and target
                                        ; ram have nothing from here to 0x6700
SECTOR_SIZE             equ 512
BUFFER                  equ RUN_ADDRESS + SECTOR_SIZE

PEEK_ADDRESS            equ 0x100000
PEEK_BYTES              equ 5           ; hvmloader begins with cld; cli; lgdt
PEEK_WORDS              equ (PEEK_BYTES + 1) / 2

BLOCK_MOVE              equ 0x87        ; int 15h AH: %cx words by the descriptors at es:si
BLOCK_MOVE_LIMIT        equ PEEK_WORDS * 2 - 1
DATA_SEGMENT            equ 0x93        ; of a descriptor: present, writable, accessed
NEXT_SECTOR             equ 2           ; %cx for DISK_READ: cylinder 0, counted from 1; with head 0
                                        ; LBA 1 on any drive

bits 16
org RUN_ADDRESS

start:
    pushf                               ; the next boot sector's, all of it
    pushad
    push ds
    push es
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov si, LOAD_ADDRESS
    mov di, RUN_ADDRESS
    mov cx, SECTOR_SIZE / 2
    rep movsw
    jmp 0:moved
moved:
    push dx                             ; the drive

    ; The BIOS's own way to what real mode cannot address: it opens the A20 gate and puts it back.
    mov ah, BLOCK_MOVE
    mov cx, PEEK_WORDS
    mov si, block_move_table
    stc                                 ; of a BIOS that doesn't know the call, and answers nothing
    int 0x15
    mov si, text_no_block_move
    jc fail

    call console_open
    mov si, text_at
.text:
    lodsb
    test al, al
    jz .bytes
    call console_char
    jmp .text
.bytes:
    mov si, BUFFER
    mov cx, PEEK_BYTES
    mov al, '='
.next_byte:
    call console_char
    lodsb
    aam 16                              ; the high digit to %ah
    push ax
    mov al, ah
    call hex_digit
    pop ax
    call hex_digit
    mov al, ' '
    loop .next_byte
    mov al, 13
    call console_char
    mov al, 10
    call console_char

    pop dx
    xor dh, dh                          ; head
    mov ax, DISK_READ << 8 | 1
    mov bx, LOAD_ADDRESS
    mov cx, NEXT_SECTOR
    int 0x13
    mov si, text_no_sector
    jc fail
    cmp word [LOAD_ADDRESS + boot_params.boot_flag], BOOT_FLAG
    jne fail
    pop es
    pop ds
    popad
    popf
    jmp 0:LOAD_ADDRESS

; hex_digit: prints a digit in lower case.
; In:       al = 0 to 15
; Out:      nothing
; Clobbers: al, flags
hex_digit:
    cmp al, 10
    sbb al, 0x69                        ; these two make a hexadecimal digit of %al
    das
    or al, 'a' - 'A'                    ; set in '0' to '9' as it is
    jmp console_char

%include "fail.inc"

text_at:
    db "at_100000", 0
text_no_block_move:
    db "peek: the BIOS cannot read above 1 MiB", 13, 10, 0
text_no_sector:
    db "peek: no boot sector in LBA 1", 13, 10, 0

    align 8, db 0
block_move_table:                       ; the entries that are 0 are the BIOS's to fill
    dq 0
    dq 0
    dw BLOCK_MOVE_LIMIT                 ; from
    dw PEEK_ADDRESS & 0xffff
    db PEEK_ADDRESS >> 16, DATA_SEGMENT, 0, 0
    dw BLOCK_MOVE_LIMIT                 ; to
    dw BUFFER
    db 0, DATA_SEGMENT, 0, 0
    dq 0
    dq 0

    boot_sector_end start
