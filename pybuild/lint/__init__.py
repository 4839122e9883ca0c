"""`invoke lint`: the style of the assembler's sources."""
