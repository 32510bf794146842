"""A content request, ready to be carried out: its briefs, one for each language, and what its answer looks like.

Knows nothing of connections, so that whoever carries it out may hold, stream or store the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.alternatives import Alternatives
from agent.brief import Brief
from agent.commission import Commission
from agent.completion import Sampling
from agent.config import AgentConfig, TenantSettings
from agent.episode import Reply
from agent.ports import Listener
from agent.siblings import together
from agent.verdict import overall
from service.http.content_reply import ContentReplies, ContentReply
from service.http.content_schema import ContentRequest
from service.http.ports import ContentPort
from service.jobs.records import Answer

CONTENT_ROUTE = "/v1/content"


@dataclass(frozen=True, slots=True)
class ContentOrder:
    """One content request of one tenant, validated."""

    request_id: str
    briefs: tuple[Brief, ...]
    sampling: Sampling
    alternatives: Alternatives
    """Of each brief."""
    has_list: bool
    """True when the answer is a list of results, even of one."""

    @classmethod
    def of(cls, body: ContentRequest, tenant: TenantSettings, defaults: AgentConfig, request_id: str) -> "ContentOrder":
        """Raises InvalidBrief."""
        sampling = body.sampling(defaults)
        has_list = body.languages is not None
        return cls(request_id, tuple(body.briefs(tenant)), sampling, body.siblings(sampling), has_list)

    async def carry_out(
        self, content: ContentPort, listeners: Sequence[Listener] = (), *, wait_s: float | None = None
    ) -> Answer:
        """Write every brief, all at once. ``listeners``, one for each brief when there are any, hear the text. Replies
        are not repaired beyond the ``wait_s`` seconds that the caller waits.

        Raises:
            ColoqError: the first that a brief raised; the others are then cancelled. There is no answer of parts.
        """
        heard: Sequence[Listener | None] = listeners or [None] * len(self.briefs)
        work = [
            content.write(
                Commission(
                    brief,
                    self.sampling,
                    request_id=self._id_of(brief),
                    alternatives=self.alternatives,
                    listener=listener,
                    wait_s=wait_s,
                )
            )
            for brief, listener in zip(self.briefs, heard, strict=True)
        ]
        return self._answer(await together(work))

    def _id_of(self, brief: Brief) -> str:
        """An id for each result, which is what feedback names."""
        return f"{self.request_id}-{brief.language}" if self.has_list else self.request_id

    def _answer(self, replies: Sequence[Reply]) -> Answer:
        verdict = overall([reply.verdict.verdict for reply in replies])
        headers = {"X-Policy-Version": str(replies[0].policy_version), "X-Language-Verdict": verdict.value}
        body = ContentReplies.of(self.request_id, replies) if self.has_list else ContentReply.of(replies[0])
        return Answer(200, body.model_dump_json(by_alias=True), headers=headers)
