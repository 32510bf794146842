"""Tells tenants of finished jobs by webhook: their endpoints, and the callback URL that the call named."""

import structlog

from agent.errors import DestinationRefused
from service.http.jobs_schema import JobView
from service.jobs.records import Job, JobState
from service.webhooks.deliveries import Deliveries
from service.webhooks.events import EventType, JobData

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TOLD = {"id", "state", "poll_url", "result", "problem"}


class JobWebhooks:
    """service.jobs.ports.JobEvents: queues `job.completed`, or `job.failed` for failed and cancelled jobs."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def finished(self, job: Job) -> None:
        """See JobEvents. The event is named by the job, so that hearing of it again sends nothing twice.

        Raises:
            StoreError: not everything was queued; what was is not queued again by the next call.
        """
        try:
            await self._queue(job, job.order.callback_url)
        except DestinationRefused as error:
            # It was allowed when the job was accepted; the tenant's endpoints hear of the job all the same.
            log.warning("callback_refused", job=job.id, tenant=job.order.tenant, reason=error.message)
            await self._queue(job, None)

    async def _queue(self, job: Job, callback_url: str | None) -> None:
        event_type = EventType.JOB_COMPLETED if job.state is JobState.SUCCEEDED else EventType.JOB_FAILED
        view = JobView.of(job).model_dump(mode="json", include=_TOLD, exclude_none=True)
        data = JobData.model_validate(view).model_dump(exclude_none=True)
        await self._deliveries.enqueue(job.order.tenant, event_type, data, callback_url=callback_url, event_id=job.id)
