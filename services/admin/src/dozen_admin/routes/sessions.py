"""Signing in and out, and the check that somebody has."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from dozen_admin.domain.staff import SESSION_LIFETIME, form_token
from dozen_admin.errors import FormExpired, NotSignedIn, SignInNeeded
from dozen_admin.routes.rendering import Pages
from dozen_admin.service.staff import StaffService

SESSION_COOKIE = "dozen_admin"
LOGIN_COOKIE = "dozen_admin_login"
"""Ties the form for signing in to the browser that it was sent to."""
HOME = "/overview"

_LOCAL_PATH = re.compile(r"/[a-z][A-Za-z0-9/._-]*(\?[A-Za-z0-9=&._-]*)?")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has signed in, and the token that the forms sent to them bring back."""

    actor: str
    form_token: str


def visitor(staff: StaffService) -> Callable[[Request], Awaitable[Visitor]]:
    """Give the dependency of pages that only the staff sees; others are shown the way to the form."""

    async def signed_in(request: Request) -> Visitor:
        token = request.cookies.get(SESSION_COOKIE, "")
        try:
            return Visitor(await staff.actor(token), form_token(token))
        except NotSignedIn as error:
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            way = f"/login?next={quote(wanted, safe='/')}" if request.method == "GET" else "/login"
            raise SignInNeeded(headers={"location": way}) from error

    return signed_in


def local_path(path: str) -> str:
    """Give a path of ours to go to, whatever somebody may have put into a link."""
    return path if _LOCAL_PATH.fullmatch(path) else HOME


def router(staff: StaffService, pages: Pages) -> APIRouter:
    """Serve `/login` and `/logout`."""
    routes = APIRouter()

    @routes.get("/login")
    async def login(request: Request, next: Annotated[str, Query(max_length=500)] = HOME) -> Response:
        token = request.cookies.get(LOGIN_COOKIE) or secrets.token_urlsafe(32)
        page = pages.render("login.html", form_token=form_token(token), next=local_path(next), message="")
        _set_cookie(page, request, LOGIN_COOKIE, token)
        return page

    @routes.post("/login")
    async def sign_in(
        request: Request,
        user: Annotated[str, Form(max_length=100)] = "",
        password: Annotated[str, Form(max_length=1000)] = "",
        form: Annotated[str, Form(max_length=100)] = "",
        next: Annotated[str, Query(max_length=500)] = HOME,
    ) -> Response:
        _check_form(request.cookies.get(LOGIN_COOKIE, ""), form)
        token = await staff.sign_in(user, password, _address(request))
        page = RedirectResponse(local_path(next), 303)
        _set_cookie(page, request, SESSION_COOKIE, token, int(SESSION_LIFETIME.total_seconds()))
        page.delete_cookie(LOGIN_COOKIE)
        return page

    @routes.post("/logout")
    async def sign_out(request: Request, form: Annotated[str, Form(max_length=100)] = "") -> Response:
        token = request.cookies.get(SESSION_COOKIE, "")
        _check_form(token, form)
        await staff.sign_out(token, _address(request))
        page = RedirectResponse("/login", 303)
        page.delete_cookie(SESSION_COOKIE)
        return page

    return routes


def _check_form(token: str, form: str) -> None:
    if not token or not hmac.compare_digest(form_token(token).encode(), form.encode()):
        raise FormExpired()


def _set_cookie(page: Response, request: Request, name: str, value: str, seconds: int | None = None) -> None:
    secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
    page.set_cookie(name, value, seconds, secure=secure, httponly=True, samesite="strict")


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
