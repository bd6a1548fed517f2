"""HTTP routes of the images service."""

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile

from dozen_chassis.http import Admitted
from dozen_images.schemas import ImageAnalysis, image_analysis
from dozen_images.service import ImagesService, Picture
from dozen_inference.departure import unless_client_leaves


def router(images: ImagesService[Picture]) -> APIRouter:
    """Serve `/v1/images/analyses`."""
    routes = APIRouter()

    @routes.post("/v1/images/analyses")
    async def create_analysis(
        admission: Admitted,
        request: Request,
        image: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        features: Annotated[list[Literal["text"]], Form()] = ["text"],  # noqa: B006  # FastAPI copies it
    ) -> ImageAnalysis:
        content = await image.read()
        analysis = await unless_client_leaves(request.receive, images.analyze(admission, model, content))
        return image_analysis(analysis)

    return routes
