"""The page at / and its files: a fixed table, read once; no path comes from a client, no script but ours may run."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

CSP = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX = "index.html"


def read_files() -> dict[str, bytes]:
    """Return the page's files by their names."""
    folder = resources.files("striate.serve").joinpath("page")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in _TYPES}


def page_router() -> APIRouter:
    """Return the routes / and /page/NAME; they need no token, and stand in no OpenAPI document."""
    router, files = APIRouter(include_in_schema=False), read_files()
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:24]}"' for name, content in files.items()}

    def serve(request: Request, name: str) -> Response:
        if name not in files:
            return Response("not found", 404, media_type="text/plain")
        headers = {
            "content-security-policy": CSP,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
            "etag": tags[name],
        }
        if tags[name] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers, media_type=_TYPES[name.rpartition(".")[2]])

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return serve(request, _INDEX)

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return serve(request, name)

    return router
