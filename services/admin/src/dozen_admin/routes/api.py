"""The same for programs."""

from fastapi import APIRouter, Request

from dozen_admin.routes.sessions import SESSION_COOKIE
from dozen_admin.schemas import OverviewBody
from dozen_admin.service.staff import StaffService
from dozen_admin.service.views import ViewsService


def router(views: ViewsService, staff: StaffService) -> APIRouter:
    """Serve `/admin/api` to those who have signed in."""
    routes = APIRouter(prefix="/admin/api")

    @routes.get("/overview")
    async def overview(request: Request) -> OverviewBody:
        await staff.actor(request.cookies.get(SESSION_COOKIE, ""))
        return OverviewBody.model_validate(await views.overview())

    return routes
