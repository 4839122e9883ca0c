; SPDX-License-Identifier: MIT
;
; loader.asm - reads the parts of an image to where the plan says, and enters the boot sector
;
; Entered by diskboot.asm. Behind its code lies the load table (loadtable.inc). It opens the A20
; gate, holds what the table asks for to the memory that there is, reads every part, holds each to
; its checksum, and jumps to the last of them, bootsect.asm, as the BIOS would: what follows is the
; same as where all parts were in memory from the start. What it cannot do it says, and stops.
;
; enter     real16                  at 0:$$, by diskboot.asm
; in        edx                     %dl is the boot drive
; in        ecx                     %cl: its sectors have 1 << this many bytes, 9 or 11
; reads     table address 0x1000..0x5000  the load table
; reads     bounce address 0x8000..0x80000  what the BIOS reads into; a multiple of 0x8000
; reads     bounce_sectors value 64..127  how much that is, in sectors of 512 bytes
; needs     $$ == 0x1000
; writes    $$..$$+0x3000           its variables
; writes    0x500..0x501            the A20 test; put back
; writes    0x5000..0x6000          scratch memory
; writes    0x6c00..0x7000          the stack
; writes    bounce..bounce+bounce_sectors*512
; clobbers  eax ecx edx ebx esp ebp esi edi fs gs
; leaves    0:0x7c00  ds=0 es=0 ss=0 cs=0 df=0 if=1
; limit     12288
;
; And it writes what the table says, wherever that is below 4 GiB. %dl is the boot drive afterwards.

%include "bootproto.inc"
%include "loadtable.inc"
%include "driver.inc"
%include "int13.inc"

BIOS_TICKS              equ 0x46c       ; dword, counts 18.2 times a second
QUIET_TICKS             equ 18          ; no progress is shown for what takes less
PROGRESS_TICKS          equ 9           ; between two figures, and more where printing one takes
PROGRESS_SHARE          equ 16          ; long: so many times that
PROGRESS_DEAREST        equ 91          ; what takes more ticks took none: it was midnight
EFLAGS_ID_BIT           equ 21          ; can be changed = there is CPUID
CPUID_LARGEST_EXTENDED  equ 0x80000000
CPUID_EXTENDED          equ 0x80000001
CPUID_LONG_MODE_BIT     equ 29          ; of %edx
FLOPPY_OUTPUT           equ 0x3f2       ; the controller's digital output register
FLOPPY_MOTORS_OFF       equ 0x0c        ; not in reset, interrupts on

; The scratch memory; loadtable.inc says how large it is.
scratch_ide             equ LOADER_SCRATCH
SCRATCH_IDE_SIZE        equ 0x200
memmap_entries          equ scratch_ide + SCRATCH_IDE_SIZE
SCRATCH_MEMMAP_SIZE     equ 0x800
memmap_e820             equ memmap_entries + SCRATCH_MEMMAP_SIZE
disk_packet             equ memmap_e820 + 0x20
scratch_end             equ disk_packet + 0x20
%if scratch_end > LOADER_SCRATCH + LOADER_SCRATCH_SIZE
    %error the scratch memory is full
%endif

bits 16

extern table
extern bounce
extern bounce_sectors

; A page of their own for the variables: emulators take every write to a page with code in it for a
; change of the code, and real CPUs do so nearby.
section .bss align=0x1000
section .text

loader:
    cli
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, LOADER_STACK
    sti
    cld
    mov [drive], dl
    mov [sector_shift], cl
    mov word [name], message_no_name
    call console_open

    call a20_enable
    mov si, message_a20
    jz stop
    call check_cpu
    call memmap_read
    call check_memory
    mov eax, [BIOS_TICKS]
    mov [started], eax
    mov dword [pause], PROGRESS_TICKS
    call choose_driver

    mov si, table + load_table_size
    mov cx, [table + load_table.entries]
.entry:
    push cx
    push si
    call load
    pop si
    add si, load_entry_size
    pop cx
    loop .entry

    mov bx, [reader]
    call [bx + driver.release]
    call a20_test                       ; a BIOS that shuts it again has spoilt what was read
    mov si, message_a20
    jz stop
    cmp byte [shown], 0
    je .quiet
    mov si, message_loaded
    call print
.quiet:
    mov dl, [drive]
    cmp dl, FIRST_HARD_DISK
    jae .enter
    mov al, FLOPPY_MOTORS_OFF           ; the boot protocol asks for that
    mov dx, FLOPPY_OUTPUT
    out dx, al
    mov dl, [drive]
.enter:
    jmp 0:BOOT_SECTOR_ADDRESS

; stop: prints a message and waits for a reset.
; In:       si = message
; Out:      does not return
; Clobbers: everything
stop:
    cmp byte [shown], 0
    mov di, message_start
    jne .begun                          ; a percentage stands there: on a line of its own
    add di, message_start.text - message_start
.begun:
    xchg si, di
    call print
    mov si, di
    call print
    mov si, message_end
    jmp fail

; check_cpu: stops if the kernel needs long mode and the CPU has none.
; In:       the load table
; Out:      nothing
; Clobbers: eax, ebx, ecx, edx, flags
check_cpu:
    test dword [table + load_table.needs], LOADER_NEEDS_LONG_MODE
    jz .done
    pushfd
    pop eax
    mov ecx, eax
    btc eax, EFLAGS_ID_BIT
    push eax
    popfd
    pushfd
    pop eax
    push ecx
    popfd
    xor eax, ecx
    bt eax, EFLAGS_ID_BIT
    jnc .none
    mov eax, CPUID_LARGEST_EXTENDED
    cpuid
    cmp eax, CPUID_EXTENDED
    jb .none
    mov eax, CPUID_EXTENDED
    cpuid
    bt edx, CPUID_LONG_MODE_BIT
    jnc .none
.done:
    ret
.none:
    mov si, message_cpu
    jmp stop

; check_memory: stops unless all that the table names is RAM.
; In:       the load table, the memory map
; Out:      nothing
; Clobbers: eax, ebx, ecx, edx, si, di, flags
check_memory:
    mov di, table + load_table_size
    mov dx, [table + load_table.entries]
.entry:
    mov eax, [di + load_entry.address]
    mov ecx, [di + load_entry.size]
    mov ebx, [di + load_entry.size + 4]
    or ebx, [di + load_entry.address + 4]
    jnz .beyond
    jecxz .right
    dec ecx
    add ecx, eax
    jc .beyond
    call memmap_check
    jc .missing
.right:
    add di, load_entry_size
    dec dx
    jnz .entry
    ret
.beyond:
    xor eax, eax                        ; the first byte above 4 GiB
    or ecx, -1
.missing:
    mov [missing], eax
    mov [last], ecx
    mov eax, [di + load_entry.address]
    mov [first], eax
    add di, load_entry.name
    mov [name], di
    mov si, message_memory
    jmp stop

; choose_driver: [reader] becomes the one that reads the boot drive, the BIOS's if no other does.
; In:       [drive], [sector_shift], the load table
; Out:      [reader]
; Clobbers: everything
choose_driver:
    mov word [reader], bios_driver
    call bios_probe
    jnc .bios
    mov [status], ah
    mov si, message_drive
    jmp stop
.bios:
    ; Two sectors to know the drive by: its first, and the first that the table names.
    mov si, table + load_table_size
.entry:
    mov eax, [si + load_entry.lba]
    mov edx, [si + load_entry.lba + 4]
    add si, load_entry_size
    mov ecx, eax
    or ecx, edx
    jz .entry                           ; there always is one: the boot sector's
    mov [reference.lba_1], eax
    mov [reference.lba_1 + 4], edx
    mov dword [request + read_request.sectors], 1
    mov dword [request + read_request.address], bounce + BOUNCE_REFERENCE + SECTOR_SIZE
    call .reference
    mov eax, [reference.lba_0]
    mov edx, [reference.lba_0 + 4]
    sub dword [request + read_request.address], SECTOR_SIZE
    call .reference

    mov si, drivers
.probe:
    push si
    call [si + driver.probe]
    pop si
    jc .next
    mov [reader], si
    ret
.next:
    add si, driver_size
    cmp si, drivers.end
    jb .probe
    ret

.reference:
    mov [request + read_request.lba], eax
    mov [request + read_request.lba + 4], edx
    call bios_read
    jc read_failed
    ret

; load: reads a part and holds it to its checksum, once more through the BIOS if another driver
; failed; stops if it cannot.
; In:       si = load_entry
; Out:      nothing
; Clobbers: everything but si
load:
    mov eax, [si + load_entry.lba]
    or eax, [si + load_entry.lba + 4]
    jz .done                            ; nothing to read
    mov ax, si
    add ax, load_entry.name
    mov [name], ax
    mov eax, [done]
    mov [done_before], eax
.again:
    mov eax, [done_before]
    mov [done], eax
    call load_once
    jc .failed
    mov eax, [xxh32.value]
    cmp eax, [si + load_entry.checksum]
    je .done
    call back_to_bios
    jnc .again
    mov [found], eax
    mov eax, [si + load_entry.checksum]
    mov [expected], eax
    mov si, message_checksum
    jmp stop
.failed:
    mov [status], ah
    call back_to_bios
    jnc .again
    mov ah, [status]
    jmp read_failed
.done:
    ret

; back_to_bios: gives up a driver that isn't the BIOS's.
; In:       [reader]
; Out:      CF clear = done; CF set = it was the BIOS's
; Clobbers: everything but eax, si
back_to_bios:
    mov bx, [reader]
    cmp bx, bios_driver
    stc
    je .done
    push eax
    push si
    call [bx + driver.release]
    mov word [reader], bios_driver
    mov ah, DISK_RESET
    mov dl, [drive]
    call bios_disk
    pop si
    pop eax
    clc
.done:
    ret

; read: has the driver in use read the request; one that isn't the BIOS's is asked twice, for the
; BIOS reads slowly, and tries again by itself.
; In:       request, [reader]
; Out:      CF clear = done; CF set: ah = status
; Clobbers: everything but si
read:
    mov bx, [reader]
    push si
    call [bx + driver.read]
    jnc .done
    mov bx, [reader]
    cmp bx, bios_driver
    stc
    je .done
    call [bx + driver.read]
.done:
    pop si
    ret

; read_failed: stops, saying where. It was the BIOS's driver: after another's failure that is asked.
; In:       ah = status, [bios_lba]
; Out:      does not return
; Clobbers: everything
read_failed:
    mov [status], ah
    mov si, message_read
    jmp stop

; load_once: reads a part.
; In:       si = load_entry
; Out:      CF clear: [xxh32.value] is the checksum of what was read; CF set: ah = status
; Clobbers: everything but si
load_once:
    mov eax, [si + load_entry.lba]
    mov edx, [si + load_entry.lba + 4]
    mov [request + read_request.lba], eax
    mov [request + read_request.lba + 4], edx
    mov eax, [si + load_entry.address]
    mov [request + read_request.address], eax
    mov eax, [si + load_entry.size]
    shr eax, SECTOR_SHIFT
    mov [left], eax
    mov ax, xxh32_begin
    call pmode_call
.next:
    mov eax, [left]
    test eax, eax
    jz .rest
    mov bx, [reader]
    cmp eax, [bx + driver.most]
    jbe .some
    mov eax, [bx + driver.most]
.some:
    mov [request + read_request.sectors], eax
    call read
    jc .done
    mov ecx, [request + read_request.sectors]
    sub [left], ecx
    add [done], ecx
    add [request + read_request.lba], ecx
    adc dword [request + read_request.lba + 4], 0
    shl ecx, SECTOR_SHIFT
    push si
    mov esi, [request + read_request.address]
    add [request + read_request.address], ecx
    mov ax, xxh32_update
    call pmode_call
    pop si
    xor eax, eax
    call progress
    jmp .next

.rest:                                  ; of less than a sector: what lies behind it is not ours
    mov ecx, [si + load_entry.size]
    and ecx, SECTOR_SIZE - 1
    mov edi, [request + read_request.address]
    jz .end
    push edi
    push ecx
    mov dword [request + read_request.address], bounce
    mov dword [request + read_request.sectors], 1
    call read
    pop ecx
    pop edi
    jc .done
    push si
    push edi
    push ecx
    mov esi, bounce
    call move_bytes
    pop ecx
    pop esi
    push esi
    push ecx
    and ecx, ~(XXH32_STRIPE - 1)
    mov ax, xxh32_update
    call pmode_call
    pop ecx
    pop edi
    mov eax, ecx
    and eax, ~(XXH32_STRIPE - 1)
    add edi, eax
    and ecx, XXH32_STRIPE - 1
    pop si
.end:
    push si
    mov esi, edi
    mov ax, xxh32_end
    call pmode_call
    pop si
    clc
.done:
    ret

; progress: says how far it has come, now and then, if it takes long. Where a port costs
; milliseconds, in some virtual machines, a line costs a quarter of a second, and must not come
; every half.
; In:       eax = sectors that were read and are not in [done] yet
; Out:      nothing
; Clobbers: eax, ebx, ecx, edx, flags
progress:
    add eax, [done]
    mov [come], eax
    mov eax, [BIOS_TICKS]
    mov ecx, eax
    sub ecx, [started]
    cmp ecx, QUIET_TICKS
    jb .done
    mov ecx, eax
    sub ecx, [shown_at]
    cmp ecx, [pause]
    jb .done
    mov [shown_at], eax
    ; In sectors a percentage stays within 32 bits.
    mov ebx, [table + load_table.total]
    mov edx, [table + load_table.total + 4]
    shrd ebx, edx, SECTOR_SHIFT
    jz .done
    mov eax, 100
    mul dword [come]
    cmp edx, ebx
    jae .done
    div ebx
    cmp byte [shown], 0
    je .show
    cmp eax, [percent]
    je .done
.show:
    mov [percent], eax
    mov byte [shown], 1
    push si
    mov si, message_progress
    call print
    pop si
    mov eax, [BIOS_TICKS]
    xchg eax, [shown_at]                ; the pause begins when it is printed
    neg eax
    add eax, [shown_at]
    cmp eax, PROGRESS_DEAREST
    ja .done
    imul eax, eax, PROGRESS_SHARE
    cmp eax, PROGRESS_TICKS
    jae .dear
    mov eax, PROGRESS_TICKS
.dear:
    mov [pause], eax
.done:
    ret

; move_bytes: copies upwards, anywhere below 4 GiB.
; In:       esi = from, edi = to, ecx = bytes
; Out:      nothing
; Clobbers: eax, ecx, edx, esi, edi, flags
move_bytes:
    cmp esi, edi
    je .done
    mov ax, .flat
    jmp pmode_call

bits 32
.flat:
    mov edx, ecx
    shr ecx, 2
    rep movsd
    mov ecx, edx
    and ecx, 3
    rep movsb
    ret

bits 16
.done:
    ret

; bios_disk: int 13h; keeps what some BIOSes spoil.
; In:       as int 13h
; Out:      as int 13h; ds = es = 0, DF clear, IF set
; Clobbers: eax, ebx, ecx, edx, flags
bios_disk:
    push esi
    push edi
    push ebp
    int 0x13
    jmp bios_done

; bios_system: int 15h, the same.
; In:       as int 15h
; Out:      as int 15h; ds = es = 0, DF clear, IF set
; Clobbers: eax, ebx, ecx, edx, flags
bios_system:
    push esi
    push edi
    push ebp
    int 0x15
bios_done:
    sti                                 ; no instruction here changes CF
    cld
    push word 0
    pop ds
    push word 0
    pop es
    pop ebp
    pop edi
    pop esi
    ret

%include "a20.inc"
%include "fail.inc"
%include "print.inc"
%include "pmode.inc"
%include "memmap.inc"
%include "xxh32.inc"
%include "drive_bios.inc"
%include "drive_ide.inc"
%include "drive_atapi.inc"
%if IDE_SCRATCH > SCRATCH_IDE_SIZE || MEMMAP_SIZE > SCRATCH_MEMMAP_SIZE
    %error the scratch memory is too small
%endif

; The drivers; the first that can read the boot drive does. Another one is another line here.
    align 4, db 0
drivers:
    istruc driver
        at driver.probe,    dw ide_probe
        at driver.read,     dw ide_read
        at driver.release,  dw ide_release
        at driver.most,     dd IDE_MOST
    iend
    istruc driver
        at driver.probe,    dw atapi_probe
        at driver.read,     dw ide_read
        at driver.release,  dw ide_release
        at driver.most,     dd IDE_MOST
    iend
.end:
bios_driver:
    istruc driver
        at driver.probe,    dw bios_probe
        at driver.read,     dw bios_read
        at driver.release,  dw bios_release
        at driver.most,     dd BIOS_MOST
    iend

; docs/messages.md explains each.
message_a20:
    db "the A20 gate stays shut: no memory above 1 MiB can be used", 0
message_cpu:
    db "this kernel needs a 64-bit CPU (long mode), this one is none", 0
message_memory:
    db "too little memory: ", SHOW_TEXT
    dw name
    db " needs 0x", SHOW_HEX
    dw first
    db " to 0x", SHOW_HEX
    dw last
    db ", there is no RAM for it at 0x", SHOW_HEX
    dw missing
    db 0
message_drive:
    db "the BIOS cannot read drive 0x", SHOW_HEX
    dw drive
    db ": status 0x", SHOW_HEX
    dw status
    db 0
message_read:
    db SHOW_TEXT
    dw name
    db " cannot be read: drive 0x", SHOW_HEX
    dw drive
    db ", LBA 0x", SHOW_HEX
    dw bios_lba
    db ": status 0x", SHOW_HEX
    dw status
    db 0
message_checksum:
    db SHOW_TEXT
    dw name
    db " is damaged: checksum 0x", SHOW_HEX
    dw found
    db ", expected 0x", SHOW_HEX
    dw expected
    db 0
message_progress:
    db 13, "bootsplice: loading ", SHOW_DECIMAL
    dw percent
    db "%", 0
message_loaded:
    db 13, "bootsplice: loading 100%"
message_end:
    db 13, 10, 0
message_start:
    db 13, 10
.text:
    db "bootsplice: ", 0

message_no_name:
    db "the disk", 0

section .bss

    resb -($ - $$) & 3                 ; to a multiple of 4
drive:
    resd 1
status:
    resd 1
request:
    resb read_request_size
reference:
.lba_0:
    resq 1
.lba_1:
    resq 1
left:                                   ; sectors of this part
    resd 1
done:                                   ; sectors of all parts
    resd 1
come:                                   ; sectors of all parts and of the read that is under way
    resd 1
done_before:                            ; of all parts before this one
    resd 1
started:                                ; BIOS ticks
    resd 1
shown_at:
    resd 1
pause:                                  ; BIOS ticks from one figure to the next
    resd 1
percent:
    resd 1
first:
    resd 1
last:
    resd 1
missing:
    resd 1
found:
    resd 1
expected:
    resd 1
name:                                   ; of the part
    resw 1
reader:                                 ; the driver in use
    resw 1
sector_shift:
    resb 1
shown:
    resb 1
