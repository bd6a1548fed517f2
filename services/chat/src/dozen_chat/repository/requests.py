"""SQL of the request log."""

from dozen_inference.request_log import RequestLogRepository


class RequestRepository(RequestLogRepository):
    """The log of requests, and what is known of tasks."""

    async def is_handled(self, event_id: str) -> bool:
        """Tell whether an event was handled to its end."""
        found: bool = await self.db.fetchval(
            "select exists (select from processed_events where event_id = $1)", event_id
        )
        return found
