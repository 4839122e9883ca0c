; SPDX-License-Identifier: MIT
;
; checksum.asm - how long each candidate for the loader's checksum takes under emulation
;
; A multiboot image for QEMU's -kernel: writes a dword into every page of SIZE bytes of memory, sums
; them all with the candidate chosen by CANDIDATE, and ends QEMU.
;     nasm -f bin -DCANDIDATE=1 -DSIZE=... -DEXPECTED=... -o sum bench/guest/checksum.asm
;
; entered: by a multiboot loader, 32-bit protected mode, flat segments
; reads, writes: BASE..BASE + SIZE, the CRC's tables at TABLES
; leaves: through isa-debug-exit (`-device isa-debug-exit,iobase=0xf4,iosize=4`), QEMU's status is
;     33 for the EXPECTED sum, 43 for another
; limit: needs SSE2 for CANDIDATE 3
;
; The defines, none optional:
;     CANDIDATE        0 none, 1 read loop, 2 XXH32, 3 Fletcher with SSE2, 4 CRC-32 by 4 bytes
;     SIZE             bytes, a multiple of 4096
;     EXPECTED         the sum

EXIT_PORT               equ 0xf4
EXIT_RIGHT              equ 0x10
EXIT_WRONG              equ 0x15

BASE                    equ 0x1000000
TABLES                  equ 0x200000
STACK                   equ 0x90000
PAGE                    equ 0x1000
LOAD                    equ 0x100000
CR4_OSFXSR              equ 0x600       ; and OSXMMEXCPT: SSE may be used

MULTIBOOT_MAGIC         equ 0x1badb002
MULTIBOOT_ADDRESSES     equ 0x10000     ; flags: the header says where everything goes

PRIME_1                 equ 0x9e3779b1  ; XXH32's
PRIME_2                 equ 0x85ebca77
PRIME_3                 equ 0xc2b2ae3d
CRC_POLYNOMIAL          equ 0xedb88320  ; CRC-32 as zlib's, bits reversed
CRC_TABLE               equ 256 * 4     ; bytes of one of the four

        bits    32
        org     LOAD

header:
        dd      MULTIBOOT_MAGIC, MULTIBOOT_ADDRESSES, -(MULTIBOOT_MAGIC + MULTIBOOT_ADDRESSES)
        dd      header, header, end, end, start

start:
        mov     esp, STACK
        mov     eax, cr4
        or      eax, CR4_OSFXSR
        mov     cr4, eax
        cld

; Page n gets the dword n in front; everything else is zero. Without a write the host would give
; the guest one and the same empty page all over.
        mov     edi, BASE
        xor     eax, eax
.page:
        mov     [edi], eax
        inc     eax
        add     edi, PAGE
        cmp     edi, BASE + SIZE
        jb      .page

        mov     esi, BASE
        mov     ebp, BASE + SIZE
        call    sum
        cmp     eax, EXPECTED
        mov     al, EXIT_RIGHT
        je      .exit
        mov     al, EXIT_WRONG
.exit:
        out     EXIT_PORT, al
        hlt

; The candidate.
; In: esi = first byte, ebp = behind the last
; Out: eax = sum
; Clobbers: all but esp
sum:
%if CANDIDATE == 0
        xor     eax, eax
        ret

%elif CANDIDATE == 1
; The sum of all dwords.
        xor     eax, eax
.dwords:
        add     eax, [esi]
        add     eax, [esi + 4]
        add     esi, 8
        cmp     esi, ebp
        jb      .dwords
        ret

%elif CANDIDATE == 2
; XXH32, seed 0, of a multiple of 16 bytes.
%macro lane 2                           ; sum, offset
        imul    edi, [esi + %2], PRIME_2
        add     %1, edi
        rol     %1, 13
        imul    %1, %1, PRIME_1
%endmacro
        mov     eax, (PRIME_1 + PRIME_2) & 0xffffffff
        mov     ebx, PRIME_2
        xor     ecx, ecx
        mov     edx, -PRIME_1 & 0xffffffff
.stripe:
        lane    eax, 0
        lane    ebx, 4
        lane    ecx, 8
        lane    edx, 12
        add     esi, 16
        cmp     esi, ebp
        jb      .stripe
        rol     eax, 1
        rol     ebx, 7
        rol     ecx, 12
        rol     edx, 18
        lea     eax, [eax + ebx + SIZE]
        add     eax, ecx
        add     eax, edx
        mov     ecx, eax
        shr     ecx, 15
        xor     eax, ecx
        imul    eax, eax, PRIME_2
        mov     ecx, eax
        shr     ecx, 13
        xor     eax, ecx
        imul    eax, eax, PRIME_3
        mov     ecx, eax
        shr     ecx, 16
        xor     eax, ecx
        ret

%elif CANDIDATE == 3
; Fletcher's sum and sum of sums in four lanes, the lowest of which is told.
        pxor    xmm0, xmm0
        pxor    xmm1, xmm1
.blocks:
        movdqu  xmm2, [esi]
        paddd   xmm0, xmm2
        paddd   xmm1, xmm0
        movdqu  xmm3, [esi + 16]
        paddd   xmm0, xmm3
        paddd   xmm1, xmm0
        add     esi, 32
        cmp     esi, ebp
        jb      .blocks
        movd    eax, xmm0
        movd    ecx, xmm1
        xor     eax, ecx
        ret

%elif CANDIDATE == 4
; CRC-32, four bytes at a time; entry n of table k is n followed by k zero bytes.
        mov     ecx, 255
.entry:
        mov     eax, ecx
        mov     dl, 8
.bit:
        shr     eax, 1
        jnc     .no_subtract
        xor     eax, CRC_POLYNOMIAL
.no_subtract:
        dec     dl
        jnz     .bit
        mov     [TABLES + ecx * 4], eax
        dec     ecx
        jns     .entry
        xor     ecx, ecx
.next:
        mov     eax, [TABLES + ecx * 4]
        movzx   edx, al
        shr     eax, 8
        xor     eax, [TABLES + edx * 4]
        mov     [TABLES + CRC_TABLE + ecx * 4], eax
        inc     ecx
        cmp     ecx, 3 * CRC_TABLE / 4
        jb      .next

        mov     eax, -1
.four:
        xor     eax, [esi]
        movzx   ecx, al
        mov     edx, [TABLES + 3 * CRC_TABLE + ecx * 4]
        movzx   ecx, ah
        xor     edx, [TABLES + 2 * CRC_TABLE + ecx * 4]
        shr     eax, 16
        movzx   ecx, al
        xor     edx, [TABLES + CRC_TABLE + ecx * 4]
        movzx   ecx, ah
        xor     edx, [TABLES + ecx * 4]
        mov     eax, edx
        add     esi, 4
        cmp     esi, ebp
        jb      .four
        not     eax
        ret
%else
  %fatal "CANDIDATE" is CANDIDATE: must be 0 to 4
%endif
end:
