"""A screenshot as a PNG of 256 colours: a quarter of its bytes, for pictures that are kept with the sources.

Source: the PNG specification, 8-bit RGB and RGBA without interlacing, which is what Chromium writes.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

Pixel = tuple[int, int, int]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}


def with_palette(png: bytes) -> bytes:
    """The same picture in its 256 most frequent colours, all flat areas among them; the others in the nearest."""
    chunks = list(_chunks(png))
    width, height, _, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    raw = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    channels = _CHANNELS[kind]
    rows = _unfiltered(raw, width * channels, channels)
    pixels = [list(zip(row[0::channels], row[1::channels], row[2::channels], strict=True)) for row in rows]
    used = Counter(pixel for row in pixels for pixel in row)
    palette = [pixel for pixel, _ in used.most_common(256)]
    place = {pixel: min(range(len(palette)), key=lambda number: _distance(palette[number], pixel)) for pixel in used}
    body = b"".join(b"\0" + bytes(place[pixel] for pixel in row) for row in pixels)
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
            _chunk(b"IDAT", zlib.compress(body, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _distance(one: Pixel, other: Pixel) -> int:
    return sum((mine - theirs) ** 2 for mine, theirs in zip(one, other, strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _unfiltered(raw: bytes, stride: int, step: int) -> Iterator[bytearray]:
    above = bytearray(stride)
    for at in range(0, len(raw), stride + 1):
        row = bytearray(raw[at + 1 : at + 1 + stride])
        _unfilter(raw[at], row, above, step)
        yield row
        above = row


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    """Undo one row's filter in place: 0 none, 1 sub, 2 up, 3 average, 4 Paeth."""
    for x, value in enumerate(row):
        left = row[x - step] if x >= step else 0
        if kind == 1:
            row[x] = (value + left) & 255
        elif kind == 2:
            row[x] = (value + above[x]) & 255
        elif kind == 3:
            row[x] = (value + (left + above[x]) // 2) & 255
        elif kind == 4:
            row[x] = (value + _paeth(left, above[x], above[x - step] if x >= step else 0)) & 255


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))
