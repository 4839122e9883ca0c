"""Text that comes from a file, as it may be shown."""


def shown(data: bytes) -> str:
    """A text that ends with its first NUL; escaped, so that no file gives a terminal orders."""
    text = data.split(b"\0", 1)[0]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in text)
