"""Images of a multipart request, received in memory: limits hold while bytes arrive, nothing touches the disk.

Starlette's own parser puts files of more than a megabyte into temporary files; images of patients must not lie there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lentigo.deploy.limits import MEBIBYTE, Place, Refused, ServiceLimits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

FIELD = "images"
MAX_NAME_CHARACTERS = 120
_EXAMPLE = "For example: curl -F images=@lesion.jpg -F images=@other.jpg http://127.0.0.1:8000/api/predict"
_SPLIT = "Send the images in several requests, or shrink them."


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request: what to call it, never a path, and its bytes."""

    name: str
    content: bytes


async def receive_images(request: Request, limits: ServiceLimits, place: Place) -> list[Upload]:
    """The files of the field `images`, one or many, in the order of the request.

    Raises:
        Refused: 415 for another content type, 413 beyond a limit, 400 for a broken body, 422 for other or no fields,
            503 where the images of all requests take too much memory.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Refused(415, f"expected multipart/form-data with the field {FIELD}", _EXAMPLE)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise _broken("the content type names no boundary")
    _check_announced(request.headers.get("content-length"), limits)
    collected = _Parts(limits)
    try:
        parser = MultipartParser(boundary, collected.callbacks())
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limits.max_request_bytes:
                raise _too_large("the request", limits.max_request_bytes, _SPLIT)
            place.hold(len(chunk))
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise _broken("it is not the multipart body that its content type announces") from None
    if collected.unfinished:
        raise _broken("it ends in the middle of a file")
    if not collected.uploads:
        raise Refused(422, f"expected one file or more in the field {FIELD}; found none", _EXAMPLE)
    return collected.uploads


def clean_name(name: str, number: int) -> str:
    """A file's name without folders and control characters, cut to a sane length; `image-3` where nothing is left."""
    plain = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in plain if character.isprintable()).strip(". ")
    return shown[-MAX_NAME_CHARACTERS:] or f"image-{number}"


@dataclass(slots=True)
class _Parts:
    """Collects what the parser finds. One part at a time is open, and only the bytes of whole files are kept."""

    limits: ServiceLimits
    uploads: list[Upload] = field(default_factory=list)
    unfinished: bool = False
    content: bytearray = field(default_factory=bytearray)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    name: str = ""

    def callbacks(self) -> MultipartCallbacks:
        """What `MultipartParser` calls, by its names."""
        return {
            "on_part_begin": self.begin,
            "on_header_field": lambda data, start, end: self.header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.header_value.extend(data[start:end]),
            "on_header_end": self.end_header,
            "on_headers_finished": self.end_headers,
            "on_part_data": self.add,
            "on_part_end": self.finish,
        }

    def begin(self) -> None:
        """A new part."""
        if len(self.uploads) >= self.limits.max_files:
            raise Refused(
                413, f"more than {self.limits.max_files} files in a request", "Send the images in several requests."
            )
        self.unfinished, self.disposition, self.content = True, b"", bytearray()

    def end_header(self) -> None:
        """Keep the one header that says which field the part is."""
        if bytes(self.header_name).lower() == b"content-disposition":
            self.disposition = bytes(self.header_value)
        self.header_name, self.header_value = bytearray(), bytearray()

    def end_headers(self) -> None:
        """Refuse parts of other fields before their content arrives."""
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self.disposition)
        found = options.get(b"name", b"").decode("utf-8", "replace")
        if found != FIELD:
            shown = "".join(character for character in found if character.isprintable())[:40]
            raise Refused(422, f"expected the field {FIELD} alone; found {shown!r}", _EXAMPLE)
        given = options.get(b"filename", b"").decode("utf-8", "replace")
        self.name = clean_name(given, len(self.uploads) + 1)

    def add(self, data: bytes, start: int, end: int) -> None:
        """More bytes of the open part."""
        if len(self.content) + end - start > self.limits.max_file_bytes:
            raise _too_large(self.name, self.limits.max_file_bytes, "Shrink the image.")
        self.content += data[start:end]

    def finish(self) -> None:
        """The open part is whole."""
        self.uploads.append(Upload(self.name, bytes(self.content)))
        self.unfinished, self.content = False, bytearray()


def _check_announced(length: str | None, limits: ServiceLimits) -> None:
    """Refuse by the announced length, before anything is received; what really arrives is counted as well."""
    if length is not None and length.isascii() and length.isdecimal() and int(length[:20]) > limits.max_request_bytes:
        raise _too_large("the request", limits.max_request_bytes, _SPLIT)


def _too_large(name: str, limit_bytes: int, remedy: str) -> Refused:
    return Refused(413, f"{name} is larger than {limit_bytes / MEBIBYTE:g} MiB", remedy)


def _broken(reason: str) -> Refused:
    return Refused(400, f"the request cannot be read: {reason}", _EXAMPLE)
