; SPDX-License-Identifier: MIT
;
; probe.asm - a kernel that reports on COM1 how it was entered, then powers off
;
; A real kernel image by the Linux/x86 boot protocol: a boot sector with the setup header, 16-bit
; setup code, a 32-bit protected-mode part, and in that on request a 64-bit entry. One source makes
; every variant:
;     nasm -f bin -I asm/include/ -I kernels/probe/ -DPROTOCOL=0x20a -o probe.bin \
;         kernels/probe/probe.asm
;
; entered: by a boot loader, 16-bit, at real-mode segment + 0x20:0 (setup.inc); or by the 32-bit
;     boot protocol at the protected-mode part's first byte (report.inc); or, with KERNEL_64, by
;     the 64-bit one 0x200 bytes further (long.inc). A BIOS that takes it for a boot disk gets a
;     message (bootsect.inc)
; in: whatever the loader left; it is reported, so nothing is assumed but A20 on
; reads: the setup header as the loader filled it, the command line, the initrd
; writes: the end of its own setup part, real-mode part + ENTRY_STACK and below, 8 bytes below
;     SCRATCH_STACK, and [run + PM_SIZE, run + INIT_SIZE): its variables first, the rest is
;     zeroed as a kernel's bss, so whatever a loader put there by mistake is gone. A zImage also
;     moves 0x10000..0x90000 down to 0x1000, as Linux's setup does
; leaves: through isa-debug-exit (`-device isa-debug-exit,iobase=0xf4,iosize=4`): QEMU's status is
;     33 after a whole report, 35 after an `error=` line. Without that device it halts. A line
;     `<what>_error=` only says why a part of the report is not there
; limit: needs a 486, no FPU, no BIOS once a loader has entered it. PM_CODE_SIZE
;     bytes of 32-bit and 64-bit code, checked below. Runs below 4 GiB
;
; The defines, all optional:
;     PROTOCOL         0 = the old protocol without HdrS, or 0x200..0x20f.          Default 0x20f
;     LOADED_HIGH      1 = bzImage, runs at 0x100000; 0 = zImage, runs at 0x1000.
;                                                   Default 1, but 0 where PROTOCOL is 0
;     RELOCATABLE      1 = runs at any aligned address; needs 0x205, LOADED_HIGH 1. Default 0
;     SETUP_SECTS      sectors of setup code, 2..55, or 0, which means 4.           Default 4
;     PM_SIZE          bytes of the protected-mode part, PM_CODE_SIZE..64 MiB, a zImage's at most
;                      0x80000; any number, even or odd.                            Default 64 KiB
;     INIT_SIZE        bytes it uses from where it runs, at least PM_SIZE + 15 + PM_VARS_SIZE.
;                      Declared from 0x20a on, used by all.
;                      Default PM_SIZE rounded up to a page, + 64 KiB (zImage: what fits)
;     KERNEL_ALIGNMENT bytes, a power of two; header field from 0x205 on.           Default 2 MiB
;     MIN_ALIGNMENT    log2 of bytes, 4..31; header field from 0x20a on.            Default 13
;     PREF_ADDRESS     only what the header says, from 0x20a on.   Default: where it runs
;     INITRD_ADDR_MAX  header field from 0x203 on.                          Default 0x7fffffff
;     CMDLINE_SIZE     characters; header field from 0x206 on, below CMDLINE_BOUND.  Default 2047
;     KERNEL_64        1 = has a 64-bit entry, too; needs 0x20c, LOADED_HIGH 1.      Default 0
;     ABOVE_4G         1 = the header says that it may be loaded above 4 GiB, where it only says
;                      that it cannot run; needs KERNEL_64 1.                        Default 0
;     PAYLOAD          1 = payload_offset and payload_length are those of the filler behind the
;                      code, not 0; needs 0x208.                                     Default 0

; ---- The defines' defaults ------------------------------------------------------------------

%ifndef PROTOCOL
  %define PROTOCOL 0x20f
%endif

; bootproto.inc names a loadflags bit LOADED_HIGH, so the define of that name steps aside.
%ifdef LOADED_HIGH
  %assign LOAD_HIGH LOADED_HIGH
  %undef LOADED_HIGH
%elif PROTOCOL == 0
  %assign LOAD_HIGH 0
%else
  %assign LOAD_HIGH 1
%endif

%ifndef RELOCATABLE
  %define RELOCATABLE 0
%endif
%ifndef SETUP_SECTS
  %define SETUP_SECTS 4
%endif
%ifndef PM_SIZE
  %define PM_SIZE 0x10000
%endif
%ifndef KERNEL_ALIGNMENT
  %define KERNEL_ALIGNMENT 0x200000
%endif
%ifndef MIN_ALIGNMENT
  %define MIN_ALIGNMENT 13
%endif
%ifndef INITRD_ADDR_MAX
  %define INITRD_ADDR_MAX 0x7fffffff
%endif
%ifndef CMDLINE_SIZE
  %define CMDLINE_SIZE 2047
%endif
%ifndef KERNEL_64
  %define KERNEL_64 0
%endif
%ifndef ABOVE_4G
  %define ABOVE_4G 0
%endif
%ifndef PAYLOAD
  %define PAYLOAD 0
%endif

; A size may be given as an expression, 5<<20 say: from here on it is its value.
%assign PM_SIZE PM_SIZE
%assign KERNEL_ALIGNMENT KERNEL_ALIGNMENT
%ifdef INIT_SIZE
  %assign INIT_SIZE INIT_SIZE
%endif

; ---- Sizes and addresses --------------------------------------------------------------------

%include "bootproto.inc"
; The upper halves of what may lie above 4 GiB are zero in our own real-mode part: see bootsect.inc.
%include "zeropage.inc"

; %assign, not equ: the checks below need them before any code is assembled.
%assign SECTOR                  512
%assign PARAGRAPH               16
%assign PAGE                    0x1000
%assign DEFAULT_SETUP_SECTS     4               ; what setup_sects = 0 means
%assign CMDLINE_BOUND           4096            ; bytes of a command line that get printed
%assign ZIMAGE_MAX              0x80000         ; 0x10000..0x90000, up to the real-mode part
%assign ZIMAGE_RUN_ADDRESS      0x1000          ; where setup moves a zImage
%assign ZIMAGE_RUN_LIMIT        0x90000         ; the real-mode part again: nothing may reach it
%assign PM_SIZE_MAX             64 << 20        ; more would only take NASM long
%assign PM_CODE_SIZE            0x1000 + KERNEL_64 * 0x800      ; with its texts; the rest is filler
%assign KERNEL_64_ENTRY         0x200           ; boot.rst: the 64-bit entry, from the part's start
%assign PM_VARS_SIZE            0x1000          ; report.inc's variables, table and stack
%assign DEFAULT_BSS             0x10000         ; what INIT_SIZE adds to PM_SIZE
%assign SETUP_SECTS_MIN         2               ; header, setup code, its variables
%assign SETUP_SECTS_MAX         55              ; ends at 0x7000, well below ENTRY_STACK

; The stack pointer given to the protected-mode entry counts from the real-mode part's start. It
; lies below 0x8000, so in memory that belongs to the setup code by every protocol version, and
; is an odd enough number to be told from one that somebody else chose.
%assign ENTRY_STACK             0x7a5c

; The 32-bit entry needs 8 bytes of stack before it knows where it runs. Just below the lowest
; address that any kernel runs at, nothing lives, and it asks no register to be right.
%assign SCRATCH_STACK           0x1000

; The furthest that the short jump at 0x200 can go, so the furthest end a setup header can have.
%assign HEADER_LIMIT            0x202 + 0x7f

%if SETUP_SECTS == 0
  %assign REAL_MODE_SIZE (DEFAULT_SETUP_SECTS + 1) * SECTOR
%else
  %assign REAL_MODE_SIZE (SETUP_SECTS + 1) * SECTOR
%endif

%if LOAD_HIGH
  %assign RUN_ADDRESS 0x100000          ; BZIMAGE_LOAD_ADDRESS, which is no preprocessor number
%else
  %assign RUN_ADDRESS ZIMAGE_RUN_ADDRESS
%endif
%ifndef PREF_ADDRESS
  %define PREF_ADDRESS RUN_ADDRESS
%endif

%ifndef INIT_SIZE
  %assign INIT_SIZE ((PM_SIZE + PAGE - 1) / PAGE) * PAGE + DEFAULT_BSS
  %if LOAD_HIGH == 0 && RUN_ADDRESS + INIT_SIZE > ZIMAGE_RUN_LIMIT
    %assign INIT_SIZE ZIMAGE_RUN_LIMIT - RUN_ADDRESS
  %endif
%endif

; The variables, from the run address: behind the last byte that the CRC covers.
%assign PM_VARS ((PM_SIZE + PARAGRAPH - 1) / PARAGRAPH) * PARAGRAPH

; ---- Nonsense is refused --------------------------------------------------------------------

; %fatal, because what follows would only drown the reason. In quotes a define's name stays a
; name, outside it becomes its value.

%if PROTOCOL != 0 && (PROTOCOL < 0x200 || PROTOCOL > 0x20f)
  %fatal "PROTOCOL" is PROTOCOL: must be 0 (no HdrS) or 0x200 to 0x20f
%endif
%if LOAD_HIGH != 0 && LOAD_HIGH != 1
  %fatal "LOADED_HIGH" is LOAD_HIGH: must be 0 or 1
%endif
%if LOAD_HIGH && PROTOCOL == 0
  %fatal "LOADED_HIGH" 1 needs "PROTOCOL" 0x200 or later: the old protocol knows only zImages
%endif
%if RELOCATABLE != 0 && RELOCATABLE != 1
  %fatal "RELOCATABLE" is RELOCATABLE: must be 0 or 1
%endif
%if RELOCATABLE && (PROTOCOL < 0x205 || LOAD_HIGH == 0)
  %fatal "RELOCATABLE" 1 needs "PROTOCOL" 0x205 or later and "LOADED_HIGH" 1
%endif
%if SETUP_SECTS != 0 && (SETUP_SECTS < SETUP_SECTS_MIN || SETUP_SECTS > SETUP_SECTS_MAX)
  %fatal "SETUP_SECTS" is SETUP_SECTS: must be 0 or SETUP_SECTS_MIN to SETUP_SECTS_MAX sectors
%endif
%if PM_SIZE < PM_CODE_SIZE || PM_SIZE > PM_SIZE_MAX
  %fatal "PM_SIZE" is PM_SIZE: must be PM_CODE_SIZE to PM_SIZE_MAX bytes
%endif
%if LOAD_HIGH == 0 && PM_SIZE > ZIMAGE_MAX
  %fatal "PM_SIZE" is PM_SIZE: a zImage ("LOADED_HIGH" 0) has at most ZIMAGE_MAX bytes
%endif
%if INIT_SIZE < PM_VARS + PM_VARS_SIZE || INIT_SIZE > 0x7fffffff
  %fatal "INIT_SIZE" is INIT_SIZE: must be at least "PM_SIZE" + 15 + PM_VARS_SIZE and fit 31 bits
%endif
%if LOAD_HIGH == 0 && RUN_ADDRESS + INIT_SIZE > ZIMAGE_RUN_LIMIT
  %fatal "INIT_SIZE" is INIT_SIZE: a zImage that runs at RUN_ADDRESS must end below ZIMAGE_RUN_LIMIT
%endif
%if KERNEL_ALIGNMENT <= 0 || (KERNEL_ALIGNMENT & (KERNEL_ALIGNMENT - 1))
  %fatal "KERNEL_ALIGNMENT" is KERNEL_ALIGNMENT: must be a power of two, in bytes
%endif
%if MIN_ALIGNMENT < 4 || MIN_ALIGNMENT > 31 || (1 << MIN_ALIGNMENT) > KERNEL_ALIGNMENT
  %fatal "MIN_ALIGNMENT" is MIN_ALIGNMENT: must be log2 of bytes, 4 to 31, and fit KERNEL_ALIGNMENT
%endif
%if CMDLINE_SIZE < 1 || CMDLINE_SIZE >= CMDLINE_BOUND
  %fatal "CMDLINE_SIZE" is CMDLINE_SIZE: must be at least 1 character and below CMDLINE_BOUND
%endif

%if KERNEL_64 != 0 && KERNEL_64 != 1
  %fatal "KERNEL_64" is KERNEL_64: must be 0 or 1
%endif
%if KERNEL_64 && (PROTOCOL < 0x20c || LOAD_HIGH == 0)
  %fatal "KERNEL_64" 1 needs "PROTOCOL" 0x20c or later and "LOADED_HIGH" 1
%endif
%if ABOVE_4G != 0 && (ABOVE_4G != 1 || KERNEL_64 == 0)
  %fatal "ABOVE_4G" is ABOVE_4G: must be 0, or 1 with "KERNEL_64" 1
%endif
%if PAYLOAD != 0 && (PAYLOAD != 1 || PROTOCOL < 0x208)
  %fatal "PAYLOAD" is PAYLOAD: must be 0, or 1 with "PROTOCOL" 0x208 or later
%endif

; ---- Filler ---------------------------------------------------------------------------------

; Fills up to a file offset with bytes that are never zero and that tell neighbouring pages apart.
; For short stretches: every byte is a line of its own to NASM.
%macro fill_to 1
  %rep (%1) - ($ - $$)
        db      (($ - $$) * 167 + (($ - $$) >> 8) * 29) & 0xff | 1
  %endrep
%endmacro

; For the megabytes: each block is one value, and no two blocks have the same, because an odd
; factor is a bijection of 32 bits. `$` stands still inside `times`, hence the block number.
%assign BLOCK_DWORDS    64
%assign BLOCK_BYTES     BLOCK_DWORDS * 4
%assign BLOCK_FACTOR    0x9e3779b1      ; 2^32 / golden ratio: neighbours differ in many bits
%macro fill_blocks 1
  %assign block 1
  %rep %1
        times BLOCK_DWORDS dd (block * BLOCK_FACTOR) & 0xffffffff
    %assign block block + 1
  %endrep
%endmacro

; ---- The image ------------------------------------------------------------------------------

; Real-mode labels count from the file's start, which is offset 0 of the real-mode segment.
; Protected-mode code uses differences of labels only.
        org     0

%include "serial.inc"
%include "vars.inc"
%include "bootsect.inc"
%include "setup.inc"
%include "report.inc"
%include "lines.inc"

%if $ - pm_start > PM_CODE_SIZE
  %assign used $ - pm_start
  %fatal the protected-mode code has used bytes, "PM_CODE_SIZE" allows only PM_CODE_SIZE
%endif
        fill_to REAL_MODE_SIZE + PM_CODE_SIZE
        fill_blocks (PM_SIZE - PM_CODE_SIZE) / BLOCK_BYTES
        fill_to REAL_MODE_SIZE + PM_SIZE
