"""All SQL of the images service."""

from dozen_chassis.postgres import Repository
from dozen_images.domain import Analysis


class ImagesRepository(Repository):
    """Records of analyses."""

    async def add(self, analysis: Analysis) -> bool:
        """Record an analysis; False where its request has one already."""
        added = await self.db.fetchval(
            "insert into analyses (id, request_id, account_id, model, width, height, lines, created_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (request_id) do nothing returning true",
            analysis.id,
            analysis.request_id,
            analysis.account,
            analysis.model,
            analysis.reading.width,
            analysis.reading.height,
            len(analysis.reading.lines),
            analysis.created_at,
        )
        return added is not None
