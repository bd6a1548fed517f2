"""The pages."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import RedirectResponse

from dozen_admin.routes.rendering import Pages
from dozen_admin.routes.sessions import HOME, Visitor, visitor
from dozen_admin.service.staff import StaffService
from dozen_admin.service.views import USAGE_DAYS, ViewsService

_PAGE = 50

AccountId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,32}$")]
AccountFilter = Annotated[str, Query(max_length=32, pattern=r"^[ -~]*$")]
After = Annotated[str | None, Query(max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]


def router(views: ViewsService, staff: StaffService, pages: Pages) -> APIRouter:
    """Serve the pages to those who have signed in."""
    routes = APIRouter()
    SignedIn = Annotated[Visitor, Depends(visitor(staff))]  # noqa: N806  # a type

    @routes.get("/")
    async def home() -> Response:
        return RedirectResponse(HOME, 303)

    @routes.get("/overview")
    async def overview(visitor: SignedIn) -> Response:
        return pages.render("overview.html", visitor=visitor, overview=await views.overview())

    @routes.get("/accounts")
    async def accounts(visitor: SignedIn, after: After = None) -> Response:
        found = await views.accounts(after=after, limit=_PAGE + 1)
        return pages.render(
            "accounts.html", visitor=visitor, after=after, accounts=found[:_PAGE], more=len(found) > _PAGE
        )

    @routes.get("/accounts/{account}")
    async def account(visitor: SignedIn, account: AccountId) -> Response:
        detail = await views.account(account)
        return pages.render("account.html", visitor=visitor, detail=detail, days=USAGE_DAYS)

    @routes.get("/usage")
    async def usage(visitor: SignedIn, account: AccountFilter = "", after: After = None) -> Response:
        wanted = account.strip().lower()
        found = await views.charges(account=wanted or None, after=after, limit=_PAGE + 1)
        return pages.render(
            "usage.html",
            visitor=visitor,
            account=wanted,
            after=after,
            charges=found[:_PAGE],
            more=len(found) > _PAGE,
        )

    @routes.get("/models")
    async def models(visitor: SignedIn) -> Response:
        return pages.render("models.html", visitor=visitor, models=await views.models())

    @routes.get("/jobs")
    async def jobs(visitor: SignedIn, after: After = None) -> Response:
        found = await views.tasks(after=after, limit=_PAGE + 1)
        return pages.render(
            "jobs.html", visitor=visitor, after=after, tasks=found[:_PAGE], more=len(found) > _PAGE
        )

    @routes.get("/audit")
    async def audit(visitor: SignedIn, after: After = None) -> Response:
        found = await staff.actions(after=after, limit=_PAGE + 1)
        return pages.render(
            "audit.html", visitor=visitor, after=after, actions=found[:_PAGE], more=len(found) > _PAGE
        )

    return routes
