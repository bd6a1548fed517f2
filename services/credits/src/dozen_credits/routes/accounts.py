"""Routes of accounts."""

from fastapi import APIRouter

from dozen_chassis.http import Admitted
from dozen_credits.schemas.accounts import Credits
from dozen_credits.service.accounts import Accounts


def router(accounts: Accounts) -> APIRouter:
    """Serve `/v1/credits`."""
    routes = APIRouter()

    @routes.get("/v1/credits")
    async def read_credits(admission: Admitted) -> Credits:
        return Credits.of(await accounts.get(admission.account))

    return routes
