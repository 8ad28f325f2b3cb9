"""How values are written for people: names made safe to print, sizes, ages, counts.

Owns: the one escaped form of file names, keys and messages. A name may hold any byte but NUL and '/': line breaks
forge log lines, escape sequences drive terminals, lone surrogates break encoders. The escaped form holds none of
these and can be read back. Never: markup, HTML, JSON quoting.
"""

import re

_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})")
_FIRST_BYTE_SURROGATE = 0xDC00
_ASCII_END = 0x80


def escape(text: str, *, ascii_only: bool = False) -> str:
    r"""The printable form: `\\` for a backslash, `\xNN` for a control or undecodable byte, else `\uNNNN`."""
    if text.isprintable() and "\\" not in text and (text.isascii() or not ascii_only):
        return text
    return "".join(_escape_one(char, ascii_only=ascii_only) for char in text)


def _escape_one(char: str, *, ascii_only: bool) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable() and (char.isascii() or not ascii_only):
        return char
    code = ord(char)
    if code < _ASCII_END:
        return f"\\x{code:02x}"
    # os.fsdecode maps the byte 0xNN that is not UTF-8 to U+DCNN: show the byte that is on the disk.
    if _ASCII_END <= code - _FIRST_BYTE_SURROGATE <= 0xFF:
        return f"\\x{code - _FIRST_BYTE_SURROGATE:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def unescape(text: str) -> str:
    """What `escape` was given; a backslash that begins no escape stays as it is."""
    return _ESCAPED.sub(_unescape_one, text) if "\\" in text else text


def _unescape_one(found: re.Match[str]) -> str:
    body = found[1]
    if body == "\\":
        return body
    code = int(body[1:], 16)
    return chr(code + _FIRST_BYTE_SURROGATE) if body[0] == "x" and code >= _ASCII_END else chr(code)


def count(number: int, noun: str) -> str:
    """`1 file`, `4 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(number_bytes: float) -> str:
    """`512 B`, `1.5 KiB`, `12 MiB`: three digits at most, no more than one behind the point."""
    kibi = 1024
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if round(number_bytes) < kibi or unit == "TiB":
            break
        number_bytes /= kibi
    is_short = unit != "B" and round(number_bytes, 1) < 10 and round(number_bytes, 1) % 1
    return f"{number_bytes:.1f} {unit}" if is_short else f"{round(number_bytes)} {unit}"


def age(seconds: float) -> str:
    """`under 1 s`, `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`: rounded down, two units at most."""
    whole = int(seconds)
    if whole < 1:
        return "under 1 s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min" if minutes else f"{whole} s"
