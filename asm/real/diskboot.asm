; SPDX-License-Identifier: MIT
;
; diskboot.asm - the boot sector of a disk, a floppy or a CD: reads the loader and enters it
;
; Entered by the BIOS. It reads the loader (loader.asm with its table) by EDD, and by CHS where that
; fails, and holds what it has read to a sum. The drive that the BIOS names in %dl comes first; if
; no intact loader is on it, the first hard disk is tried, too: there are BIOSes that pass nonsense.
;
; enter     real16 0x7c00           by the BIOS
; in        edx                     %dl is the boot drive, to be taken with a pinch of salt
; reads     loader_lba_low value 0..0xffffffff  where the loader lies, in sectors of the drive
; reads     loader_lba_high value 0..0xffffffff
; reads     loader_sectors value 1..32  sectors of the drive
; reads     loader_size bytes 4..0x4000  a multiple of 4
; reads     loader_sum value 0..0xffffffff  of its dwords, see enter_loader
; reads     sector_shift value 9..11  the drive's sectors have 1 << this many bytes; 11 on a CD
; writes    0x1000..0x5000          the loader
; writes    0x6c00..0x7000          the stack
; writes    0x7c00..0x7e00          its own variables
; clobbers  eax ecx edx ebx esp ebp esi edi fs gs
; leaves    0:0x1000  es=0 cs=0 ss=0 ds=0 df=0 if=1
; limit     512
;
; The loader finds the drive in %dl and sector_shift in %cl. Bytes 0x1b8 to 0x1fd, the disk
; signature and the partition table, belong to the disk: they are zero here, and who writes the
; sector to a disk keeps the disk's own. There are BIOSes that take a USB stick for one with a FAT
; file system, and write to where that has its geometry and the drive's number before they enter
; the sector: there lie only variables, and a FAT32's number of the drive falls into the message.

%include "bootproto.inc"
%include "bootsector.inc"
%include "int13.inc"
%include "loadtable.inc"

FAT_GEOMETRY            equ 0x18        ; offset: sectors a track, heads, hidden sectors, sectors,
FAT_GEOMETRY_END        equ 0x25        ; the BIOS's drive
TRIES                   equ 4           ; a floppy's first tries fail while it spins up

; A label's address once the BIOS has loaded the sector.
%define at(label) (BOOT_SECTOR_ADDRESS + label - start)

bits 16

extern loader_lba_low
extern loader_lba_high
extern loader_sectors
extern loader_size
extern loader_sum
extern sector_shift

section .text

start:
    jmp short begin
    nop

    times BOOT_ID_AT - ($ - start) db 0
id:                                     ; struc boot_id
    dd BOOT_ID_MAGIC
.loader_lba:
    dd loader_lba_low, loader_lba_high
.loader_sum:
    dd loader_sum
    dw loader_sectors
.sector_shift:
    db sector_shift

    times FAT_GEOMETRY - ($ - start) db 0
status:                                 ; what is here when the BIOS enters does not matter
    db 0
tries:
    db 0
    times FAT_GEOMETRY_END - ($ - start) db 0

packet:                                 ; EDD's disk address packet
    dw .end - packet
.sectors:
    dw 0
    dw LOADER_ADDRESS, 0
    dd loader_lba_low, loader_lba_high
.end:

message:
    db "bootsplice: drive "
.drive:
    db "xx, status "
.status:
    db "xx: bad loader", 13, 10, 0

begin:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, LOADER_STACK
    sti
    cld
    jmp 0:at(.normal)                   ; some BIOSes enter at 0x7c0:0
.normal:
    call try_drive                      ; returns if there is no intact loader on it
    ; The message is about the drive that the BIOS named.
    mov di, at(message.drive)
    mov al, dl
    call hex
    mov di, at(message.status)
    mov al, [at(status)]
    call hex
    mov dl, FIRST_HARD_DISK
    call try_drive
    mov si, at(message)
    jmp fail

%include "fail.inc"

; try_drive: reads the loader and enters it; returns if that cannot be done from this drive.
; In:       dl = drive
; Out:      nothing; it returns if there is no intact loader
; Clobbers: everything but dl
try_drive:
    mov ah, DISK_READ_EDD
    mov si, at(packet)
    call disk
    jc .no_edd
    call enter_loader
.no_edd:
    call read_chs
    jc enter_loader.wrong               ; a RET

; enter_loader: enters the loader if what was read is the loader; else returns. try_drive falls
; into it.
; In:       dl = drive
; Out:      nothing; it returns if what was read isn't the loader
; Clobbers: eax, ebx, cx, si, flags
enter_loader:
    mov si, LOADER_ADDRESS
    mov cx, loader_size
    shr cx, 2
    xor ebx, ebx
.dword:
    lodsd
    add ebx, eax
    rol ebx, LOADER_SUM_ROTATE          ; or the upper bits of the words would hardly count
    imul ebx, ebx, LOADER_SUM_FACTOR
    loop .dword
    cmp ebx, [at(id.loader_sum)]
    jne .wrong
    mov cl, [at(id.sector_shift)]
    jmp 0:LOADER_ADDRESS
.wrong:
    ret

; read_chs: reads the loader sector by sector.
; In:       dl = drive
; Out:      CF set = it cannot be read
; Clobbers: everything but dl
read_chs:
    push dx
    mov ah, DISK_GEOMETRY
    call bios_disk
    movzx edi, dh
    pop dx
    jc .done
    inc di                              ; it gives the last head
    and cx, GEOMETRY_SECTORS
    stc
    jz .done
    movzx esi, cx

    mov ebp, [at(id.loader_lba)]
    mov bx, LOADER_ADDRESS
.sector:
    push dx
    mov eax, ebp
    xor edx, edx
    div esi
    mov cx, dx
    inc cx                              ; sectors count from 1
    xor edx, edx
    div edi                             ; %eax = cylinder, %dl = head
    mov ch, al
    shl ah, 6                           ; bits 8 and 9 of the cylinder are bits 6 and 7 of %cl;
    or cl, ah                           ; of one beyond 1023 the sum will tell
    pop ax
    mov dh, dl
    mov dl, al
    mov ax, DISK_READ << 8 | 1
    call disk
    jc .done
    inc ebp
    add bx, SECTOR_SIZE
    cmp bx, strict word LOADER_ADDRESS + loader_size
    jb .sector                          ; CF is clear when it falls through
.done:
    ret

; disk: a call of the BIOS's disk service, tried again after a reset.
; In:       as int 13h
; Out:      CF set = it failed, [status] = why; all other registers as they were
; Clobbers: flags
disk:
    pushad
    mov byte [at(tries)], TRIES
.again:
    popad
    pushad
    ; A BIOS that read but a part of them has written here how many.
    mov word [at(packet.sectors)], loader_sectors
    call bios_disk
    mov [at(status)], ah
    jnc .done
    popad
    pushad
    mov ah, DISK_RESET
    call bios_disk
    dec byte [at(tries)]
    jnz .again
    stc
.done:
    popad
    ret

; bios_disk: int 13h, and what it may have spoilt that nothing here can do without.
; In:       as int 13h
; Out:      as int 13h; ds = es = ss = 0, DF clear, IF set
; Clobbers: eax, ebx, ecx, edx, edi, flags
bios_disk:
    int 0x13
    sti
    cld
    push ss
    pop ds
    push ss
    pop es
    ret

; hex: writes a byte as two digits.
; In:       al = byte, es:di = where
; Out:      di = behind them
; Clobbers: ax, flags
hex:
    aam 16                              ; %ah = upper digit, %al = lower
    xchg al, ah
    call .digit
    xchg al, ah
.digit:
    cmp al, 10
    sbb al, 0x69
    das
    stosb
    ret

    boot_sector_end start
