"""What browsers need of every answer: security headers, and errors as pages."""

import json

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dozen_admin.domain.staff import form_token
from dozen_admin.errors import TooManyFailures, WrongPassword
from dozen_admin.routes.rendering import Pages
from dozen_admin.routes.sessions import LOGIN_COOKIE, local_path

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_FOR_PROGRAMS = ("/admin/api/", "/healthz", "/readyz", "/metrics")
_ON_THE_FORM = (WrongPassword.code, TooManyFailures.code)


class Browser:
    """ASGI middleware: adds the headers, and shows errors as pages except to programs."""

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        error: Message | None = None
        body = b""

        async def send_dressed(message: Message) -> None:
            nonlocal error, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                lasting = path.startswith("/static/") and message["status"] < 400
                headers["cache-control"] = "public, max-age=31536000, immutable" if lasting else "no-store"
                if message["status"] >= 400 and not path.startswith(_FOR_PROGRAMS):
                    error = message
                    return
            elif error is not None:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                await self._send_page(Request(scope), error, body, send)
                return
            await send(message)

        await self._app(scope, receive, send_dressed)

    async def _send_page(self, request: Request, start: Message, body: bytes, send: Send) -> None:
        said = json.loads(body)["error"]
        shown = {"status": start["status"], "message": said["message"]}
        if said["code"] in _ON_THE_FORM:
            page = self._pages.render(
                "login.html",
                form_token=form_token(request.cookies.get(LOGIN_COOKIE, "")),
                next=local_path(request.query_params.get("next", "")),
                **shown,
            )
        else:
            page = self._pages.render("error.html", **shown)
        headers = MutableHeaders(scope=start)
        for name in ("content-type", "content-length"):
            headers[name] = page.headers[name]
        await send(start)
        await send({"type": "http.response.body", "body": page.body})
