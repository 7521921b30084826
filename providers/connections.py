"""How connections to providers are encrypted, and why one could not be made."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final

from domain.binds import BindFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from domain.configuration.providers.connections import TlsOptions

_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
# The usual ones of OpenSSL's X509_V_ERR_…; the others are shown by their number.
_CERTIFICATE_ERRORS: Final[Mapping[int, str]] = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "a certificate of the chain is self-signed",
    20: "the issuer of the certificate is not known",
    21: "the first certificate cannot be verified",
    62: "the certificate is not for this host",
    64: "the certificate is not for this address",
}


class TlsFileUnusable(Exception):
    """A file of a provider's `tls` cannot be read or used; `subject` names its key and path."""

    loggable = True

    def __init__(self, subject: str, error: OSError) -> None:
        self.subject = subject
        self.cause = type(error).__name__
        super().__init__(f"{subject} cannot be read or used: {self.cause}")


def connect_failure(cause: BaseException | None) -> tuple[BindFailure, str]:
    """The kind of a connection's failure, and its code: no text in which an address may stand."""
    code = type(cause).__name__
    match cause:
        case ConnectionRefusedError():
            return BindFailure.CONNECTION_REFUSED, code
        case socket.gaierror() | UnicodeError():
            return BindFailure.HOST_NOT_FOUND, code
        case ssl.SSLCertVerificationError():
            return (
                BindFailure.TLS_FAILED,
                f"{code}: {_CERTIFICATE_ERRORS.get(cause.verify_code, cause.verify_code)}",
            )
        case ssl.SSLError():
            return BindFailure.TLS_FAILED, code
        case TimeoutError():
            return BindFailure.TIMEOUT, code
        case OSError(errno=None) if _all_refused(str(cause)):
            return BindFailure.CONNECTION_REFUSED, ConnectionRefusedError.__name__
    return BindFailure.CONNECT_FAILED, code


def _all_refused(multiple: str) -> bool:
    """Whether each address of a host refused; asyncio then puts their errors into one text."""
    return {int(number) for number in _ERRNO.findall(multiple)} == {errno.ECONNREFUSED}


def tls_context(options: TlsOptions | None) -> ssl.SSLContext | None:
    """The context of a connection with these options; None without options.

    Raises:
        TlsFileUnusable: a file cannot be read or used.
    """
    if options is None:
        return None
    with _naming(f'tls.ca = "{options.ca}"'):
        context = ssl.create_default_context(cafile=options.ca)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert is not None and options.key is not None:
        # OpenSSL's errors do not say which of the two files is missing.
        for key, path in (("cert", options.cert), ("key", options.key)):
            with _naming(f'tls.{key} = "{path}"'), open(path, "rb"):  # noqa: PTH123 - a text
                pass
        with _naming(f'tls.cert = "{options.cert}", tls.key = "{options.key}"'):
            context.load_cert_chain(options.cert, options.key)
    return context


@contextlib.contextmanager
def _naming(subject: str) -> Iterator[None]:
    """Name the key and the path of a file that cannot be read or used."""
    try:
        yield
    except OSError as error:  # and ssl.SSLError, which is one
        raise TlsFileUnusable(subject, error) from error
