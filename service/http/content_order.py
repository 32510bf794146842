"""A content request, ready to be carried out: its briefs, one for each language, and what its answer looks like.

Knows nothing of connections, so that whoever carries it out may hold, stream or store the answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agent.brief import Brief
from agent.completion import Sampling
from agent.config import AgentConfig, TenantSettings
from agent.episode import Reply
from agent.ports import Listener
from agent.verdict import overall
from service.http.content_reply import ContentReplies, ContentReply
from service.http.content_schema import ContentRequest
from service.http.ports import ContentPort


@dataclass(frozen=True, slots=True)
class ContentAnswer:
    """What was written, as body and headers of a response."""

    body: ContentReply | ContentReplies
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class ContentOrder:
    """One content request of one tenant, validated."""

    request_id: str
    briefs: tuple[Brief, ...]
    sampling: Sampling
    has_list: bool
    """True when the answer is a list of results, even of one."""

    @classmethod
    def of(cls, body: ContentRequest, tenant: TenantSettings, defaults: AgentConfig, request_id: str) -> "ContentOrder":
        """Raises InvalidBrief."""
        return cls(request_id, tuple(body.briefs(tenant)), body.sampling(defaults), body.languages is not None)

    async def carry_out(self, content: ContentPort, listeners: Sequence[Listener] = ()) -> ContentAnswer:
        """Write every brief, all at once. ``listeners``, one for each brief when there are any, hear the text.

        Raises:
            ColoqError: the first that a brief raised; the others are then cancelled. There is no answer of parts.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(
                        content.write(
                            brief,
                            self.sampling,
                            request_id=self._id_of(brief),
                            listener=listeners[number] if listeners else None,
                        )
                    )
                    for number, brief in enumerate(self.briefs)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return self._answer([task.result() for task in running])

    def _id_of(self, brief: Brief) -> str:
        """An id for each result, which is what feedback names."""
        return f"{self.request_id}-{brief.language}" if self.has_list else self.request_id

    def _answer(self, replies: Sequence[Reply]) -> ContentAnswer:
        verdict = overall([reply.verdict.verdict for reply in replies])
        headers = {"X-Policy-Version": str(replies[0].policy_version), "X-Language-Verdict": verdict.value}
        if self.has_list:
            return ContentAnswer(ContentReplies.of(self.request_id, replies), headers)
        return ContentAnswer(ContentReply.of(replies[0]), headers)
