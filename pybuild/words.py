"""Text that comes from a file, as it may be shown."""

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the end of a line


def shown(data: bytes) -> str:
    """A text that ends with its first NUL; escaped, so that no file gives a terminal orders."""
    text = data.split(b"\0", 1)[0]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in text)


def harmless(text: str) -> str:
    """A text with what would give a terminal orders escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
