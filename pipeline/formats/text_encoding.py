"""Decode the bytes of a text or JSON, or give a reject reason; never wrong characters."""

import codecs
import json
from typing import Any

UTF_8 = "utf-8"
BOMS = (  # longest first: UTF-16's is the start of UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class NotText(ValueError):
    """Bytes are no text in the expected encoding, or no JSON."""


class WrongEncoding(NotText):
    """The bytes are not in the expected encoding."""


class WrittenFloat(float):
    """A float that keeps its digits as written: as a label, 1.10 is not 1.1."""

    written: str

    def __new__(cls, written: str) -> "WrittenFloat":
        number = super().__new__(cls, written)
        number.written = written
        return number


def encoding_named(name: str) -> str:
    """The usual name of an encoding: GBK -> gbk. ValueError when Python has none of that name."""
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)  # base64 and the like are no encodings of text
    except LookupError as error:
        raise ValueError(f"{name!r} is no encoding; utf-8, gbk, latin-1, shift_jis or utf-16-le, say") from error
    return codec.name


def decoded_text(data: bytes, encoding: str = UTF_8) -> str:
    """The text of some bytes. A byte order mark decides, and is removed; without one ``encoding`` does.

    Raises WrongEncoding for bytes that are not of it, and for NUL characters, which UTF-16 without a mark shows as.
    """
    found = next((name for bom, name in BOMS if data.startswith(bom)), encoding)
    try:
        text = data.decode(found)
    except UnicodeDecodeError as error:
        wrong = data[error.start]
        raise WrongEncoding(
            f"byte {error.start:,} (0x{wrong:02X}) is not {found.removesuffix('-sig').upper()}"
        ) from error
    if "\0" in text:
        raise WrongEncoding(
            "it holds NUL characters, as UTF-16 without a byte order mark does when it is read as UTF-8"
        )
    return text


def json_fields(data: bytes, encoding: str = UTF_8) -> dict[str, Any]:
    """The fields of a JSON object; of any other JSON none. Integers keep all digits, floats those that were written.

    Raises NotText for what is no JSON, or not in the encoding; UTF-16 and UTF-32 are recognized without a mark.
    """
    if encoding == UTF_8 and not any(data.startswith(bom) for bom, _ in BOMS):
        encoding = json.detect_encoding(data)
    text = decoded_text(data, encoding)
    try:
        fields = json.loads(text, parse_float=WrittenFloat)
    except RecursionError as error:
        raise NotText("its lists or objects are nested too deep") from error
    except ValueError as error:
        raise NotText(f"it is no JSON: {error}") from error
    return fields if isinstance(fields, dict) else {}


def field_text(value: Any) -> str:
    """A field of a JSON as text: strings as they are, numbers as written, the rest as JSON.

    JSON can spell half a character (\\ud800), which no table can hold: it becomes a question mark.
    """
    if isinstance(value, WrittenFloat):
        return value.written
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()
