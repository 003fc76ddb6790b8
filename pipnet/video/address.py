"""Pictures at addresses. The content of the answer tells whether an address leads to a picture; its name does not."""

import threading
import time
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    build_opener,
)

from pipnet.errors import UserError, one_line
from pipnet.images import BEGINNING, is_picture

LONGEST = 200  # bytes of a file's name
MOST = 2**28  # bytes of a picture
PATIENCE = 10.0  # s that an address may take to answer, and that a picture of unknown length may take to come
WHOLE = 60.0  # s in which an answer must be complete
SAFE = "%/:=&?~#+!$,;'@()*[]"  # characters of an address that are not quoted again
STREAMS = "multipart/", "video/", "audio/"  # kinds of answers that have no end, or are no picture


class Redirects(HTTPRedirectHandler):
    """Follows a server to web addresses only."""

    def redirect_request(self, *given: Any) -> Any:
        """Return the request of the new address, the last one given."""
        if not given[-1].lower().startswith(("http://", "https://")):
            raise URLError(f"it leads to {one_line(given[-1], 80)}, which is no web address")
        return super().redirect_request(*given)


class NoPicture(URLError):
    """An answer that is no picture. reason: the kind of its content."""


def fetch_picture(address: str) -> tuple[bytes, str] | None:
    """Return (picture, name) that an http or ftp address sends; None if it may be a stream.

    URLError if there is no answer or no picture, HTTPError for a status such as 404. UserError if the answer has not come
    within WHOLE seconds: a server may send a byte from time to time for ever.
    """
    answer: Future[tuple[bytes, str] | None] = Future()

    def fetch() -> None:
        try:
            answer.set_result(_fetch(address))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        return answer.result(WHOLE)
    except TimeoutError:
        raise UserError(
            f"{address} has not sent its whole answer within {WHOLE:g} s; fetch the picture, and give the file"
        ) from None


def _fetch(address: str) -> tuple[bytes, str] | None:
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise URLError(error) from None
    if parts.scheme.lower() not in ("http", "https", "ftp"):
        return None
    try:
        with _opener(address).open(_without_user(address), timeout=PATIENCE) as answer:
            return _picture(answer, Path(unquote(parts.path)).name)
    except URLError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise URLError(error) from None


def _picture(answer: Any, name: str) -> tuple[bytes, str] | None:
    kind = answer.headers.get_content_type()
    if kind.startswith(STREAMS):
        return None
    beginning = answer.read(BEGINNING)
    if not _is_picture(beginning):
        raise NoPicture(kind if beginning else "nothing")
    data, length = bytearray(beginning), int(answer.headers.get("Content-Length") or 0)
    until = time.monotonic() + (WHOLE if length else PATIENCE)
    while part := answer.read1(2**20) if hasattr(answer, "read1") else answer.read(2**20):
        data += part
        if len(data) > MOST or time.monotonic() > until:
            return None  # pictures without end: a stream
    if len(data) < length:
        raise UserError(
            f"{answer.url} has sent {len(data):,} of {length:,} bytes; fetch the picture, and give the file"
        )
    return bytes(data), name if name not in ("", "..") and name.isprintable() and len(
        name.encode()
    ) <= LONGEST else "picture"


def failure(error: URLError) -> str:
    """Return in words why an address sends nothing."""
    if isinstance(error, HTTPError):
        error.close()
        return f"the server answers {error.code} {one_line(error.reason)}"
    if isinstance(error, NoPicture):
        return f"the server sends {one_line(error.reason, 80)}, no picture or video that OpenCV reads"
    return f"it does not answer ({one_line(getattr(error.reason, 'strerror', None) or error.reason)})"


def _is_picture(beginning: bytes) -> bool:
    """Return whether a file that begins so is a picture that OpenCV reads."""
    with NamedTemporaryFile() as file:
        file.write(beginning)
        file.flush()
        return is_picture(Path(file.name))


def _without_user(address: str) -> str:
    """Return the address without user and password, which urllib does not take there."""
    parts = urlsplit(address)
    path, query = (quote(part, SAFE) for part in (parts.path, parts.query))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query=query))


def _opener(address: str) -> Any:
    """Return an opener that answers with the user and password of the address when the server asks for them."""
    parts, passwords = urlsplit(address), HTTPPasswordMgrWithDefaultRealm()
    if parts.username:
        passwords.add_password(None, _without_user(address), unquote(parts.username), unquote(parts.password or ""))
    return build_opener(Redirects, HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords))
