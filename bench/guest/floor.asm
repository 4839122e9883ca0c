; SPDX-License-Identifier: MIT
;
; floor.asm - a disk whose boot sector ends QEMU at once: what the firmware alone takes
;
; entered: by a BIOS at 0x7c00, 16-bit real mode
; leaves: through isa-debug-exit (`-device isa-debug-exit,iobase=0xf4,iosize=4`), QEMU's status
;     is 33
; limit: 446 bytes. As the boot image of a CD its first four sectors do the same

EXIT_PORT               equ 0xf4
EXIT_REACHED            equ 0x10
DISK_SIZE               equ 1 << 20     ; bytes; SeaBIOS boots no AHCI disk below 16 * 63 sectors
SECTOR                  equ 512
SIGNATURE               equ 0xaa55

        bits    16

        mov     al, EXIT_REACHED
        out     EXIT_PORT, al
        hlt

        times   SECTOR - 2 - ($ - $$) db 0
        dw      SIGNATURE
        times   DISK_SIZE - ($ - $$) db 0
