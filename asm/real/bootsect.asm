; SPDX-License-Identifier: MIT
;
; bootsect.asm - the register-state boot sector
;
; Entered by the BIOS. It does nothing but load a register state and jump: everything else is in
; memory already. The layout is generate_bootsect's of the 2007 QEMU patch series, byte for byte.
;
; enter     real16 0x7c00           by the BIOS; nothing else is relied on
; reads     seg_es value 0..0xffff  real-mode segments to enter with; all of seg_*
; reads     seg_cs value 0..0xffff
; reads     seg_ss value 0..0xffff
; reads     seg_ds value 0..0xffff
; reads     seg_fs value 0..0xffff
; reads     seg_gs value 0..0xffff
; reads     gpr_eax value 0..0xffffffff  general registers to enter with; all of gpr_*
; reads     gpr_ecx value 0..0xffffffff
; reads     gpr_edx value 0..0xffffffff
; reads     gpr_ebx value 0..0xffffffff
; reads     gpr_esp value 0..0xffffffff
; reads     gpr_ebp value 0..0xffffffff
; reads     gpr_esi value 0..0xffffffff
; reads     gpr_edi value 0..0xffffffff
; reads     ip value 0..0xffff      where to go in seg_cs
; leaves    seg_cs:ip  es=seg_es cs=seg_cs ss=seg_ss ds=seg_ds fs=seg_fs gs=seg_gs eax=gpr_eax ecx=gpr_ecx edx=gpr_edx ebx=gpr_ebx esp=gpr_esp ebp=gpr_ebp esi=gpr_esi edi=gpr_edi df=0 if=0
; limit     512
;
; Bytes 0x1b8 to 0x1fd, the disk signature and the partition table, belong to the disk: they are
; zero here, and who writes the sector to a disk keeps the disk's own.

%include "bootproto.inc"
%include "bootsector.inc"

JMP_FAR                 equ 0xea

bits 16

extern seg_es
extern seg_cs
extern seg_ss
extern seg_ds
extern seg_fs
extern seg_gs
extern gpr_eax
extern gpr_ecx
extern gpr_edx
extern gpr_ebx
extern gpr_esp
extern gpr_ebp
extern gpr_esi
extern gpr_edi
extern ip

section .text

start:
    cli
    cld

    mov ax, strict word seg_es
    mov es, ax
    mov ax, strict word seg_ss
    mov ss, ax
    mov ax, strict word seg_ds
    mov ds, ax
    mov ax, strict word seg_fs
    mov fs, ax
    mov ax, strict word seg_gs
    mov gs, ax

    mov eax, strict dword gpr_eax
    mov ecx, strict dword gpr_ecx
    mov edx, strict dword gpr_edx
    mov ebx, strict dword gpr_ebx
    mov esp, strict dword gpr_esp
    mov ebp, strict dword gpr_ebp
    mov esi, strict dword gpr_esi
    mov edi, strict dword gpr_edi

    ; A far jump. NASM's ELF formats have no segment relocations, so the operand of the mnemonic
    ; cannot name a symbol's segment: the instruction is written out.
    db JMP_FAR
    dw ip
    dw seg_cs

    boot_sector_end start
