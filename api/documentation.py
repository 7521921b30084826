"""The page at `/docs`: the OpenAPI document, to read and to try, from files of our own.

People type keys into this page, so it runs no script from elsewhere, and its Content-Security-Policy
allows none. The files of Swagger UI are in `assets/swagger-ui`, with their licence and hashes.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from api.problems import NOT_FOUND, Problem

router = APIRouter(include_in_schema=False)

_ASSETS: Final = Path(__file__).parent / "assets"
_HTML: Final = "text/html; charset=utf-8"
_FILES: Final = MappingProxyType(
    {
        "documentation.js": (_ASSETS / "documentation.js", "text/javascript; charset=utf-8"),
        "swagger-ui-bundle.js": (
            _ASSETS / "swagger-ui/swagger-ui-bundle.js",
            "text/javascript; charset=utf-8",
        ),
        "swagger-ui.css": (_ASSETS / "swagger-ui/swagger-ui.css", "text/css; charset=utf-8"),
        "favicon-32x32.png": (_ASSETS / "swagger-ui/favicon-32x32.png", "image/png"),
    }
)

# Scripts, styles and requests only of this origin; images also from the style sheet itself.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)


@router.get("/docs")
async def page() -> Response:
    """The page itself."""
    return _file(_ASSETS / "documentation.html", _HTML)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file that the page names."""
    if name not in _FILES:
        raise Problem(NOT_FOUND)
    return _file(*_FILES[name])


def _file(path: Path, media_type: str) -> Response:
    return FileResponse(path, media_type=media_type, headers=dict(_HEADERS))
