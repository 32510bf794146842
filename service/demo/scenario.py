"""The demo as the order of its stages, against a node's HTTP API alone:

    briefs ─► feedback, rewards ─► tuning steps ─► gate, publication and swaps under traffic ─► rewards ─► rollback

A stage that does not show what it has to show ends the demo with DemoFailed. Knows no process and no file.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from agent.completion import BASE_VERSION
from service.demo.briefs import MAX_WORDS, DemoBrief, first_of_each_language, languages_of
from service.demo.failure import DemoFailed
from service.demo.results import DemoResults, Exchange, Failure, Flip, GreedyCheck, RewardPair, SwapRecord
from service.demo.screen import Screen
from service.demo.tenant_client import Clock, TenantClient, Traffic
from service.http.inspection_client import InspectionClient
from service.http.inspection_schema import RequestView
from service.http.tuning_schema import EvaluationView, RunBody, RunView
from trainer.records import RunState

MAX_FALL = 0.05
"""The held-out reward may fall by so much: of twelve demos, eight steps each and examined on a few prompts, one showed
hardly a rise, which is what a demo then shows."""
_NUM_CLIENTS = 3
_AT_ONCE = 12
_POLL_S = 0.1
_STARS = 2
_REPLIES_PER_POLICY = 4
"""Replies that clients get of one policy before it is changed again."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the stages share."""

    tenant: TenantClient
    admin: InspectionClient
    screen: Screen
    clock: Clock

    async def play(self, briefs: Sequence[DemoBrief], run: RunBody) -> DemoResults:
        """Every stage, in order.

        Raises:
            DemoFailed: a stage did not show what it has to show.
            NodeRefused: the node refused an operator's call.
        """
        shown = first_of_each_language(briefs)
        replies, original = await self._send(briefs, shown)
        said = await self._say(replies[0])
        stepped = await self._take_steps(run)
        tuned_run, tuned, swap = await self._swap(stepped.id, shown)
        rewards = await self._judge(replies, swap, tuned_run.published[-1])
        greedy = GreedyCheck(original, tuned, await self._roll_back(original))
        return DemoResults(
            duration_s=self.clock.now_s,
            replies=tuple(replies),
            run=tuned_run,
            evaluation=checked_evaluation(tuned_run),
            swap=swap,
            greedy=greedy,
            said=said,
            rewards=tuple(rewards),
        )

    async def _send(self, briefs: Sequence[DemoBrief], shown: Sequence[DemoBrief]) -> tuple[list[Exchange], Exchange]:
        """Replies of the untuned model to the shown briefs, and its greedy reply to the first."""
        turns = asyncio.Semaphore(_AT_ONCE)
        done = itertools.count(1)
        title = f"Send {len(briefs)} briefs in {', '.join(languages_of(briefs))}"
        with self.screen.stage(title), self.screen.busy() as status:

            async def send(brief: DemoBrief) -> Exchange:
                async with turns:
                    reply = succeeded(await self.tenant.write(brief))
                status.update(f"{next(done)} of {len(briefs)} replies")
                return reply

            # gather cancels every request when the demo is interrupted.
            replies = [reply for reply in await asyncio.gather(*map(send, briefs)) if reply.brief in shown]
            self.screen.replies(replies)
            return replies, await self._greedy(shown[0])

    async def _say(self, reply: Exchange) -> RequestView:
        """Post an editor's feedback on a reply; the request as an operator sees it then."""
        with self.screen.stage("Say what became of a reply: an edit that was published, and stars"):
            await self.tenant.say(reply.request_id, edit=shortened(reply.text), rating=_STARS)
            request = await self._request(reply)
            check_said(request)
            self.screen.request(request)
            return request

    async def _judge(self, replies: Sequence[Exchange], swap: SwapRecord, version: int) -> list[RewardPair]:
        """What replies to the same briefs are worth, untuned and tuned, by the same judges."""
        tuned = swap.first_replies_of(version)
        pairs = [(reply, tuned[reply.brief]) for reply in replies if reply.brief in tuned]
        with self.screen.stage("Look at the reward of replies, part by part, before and after"):
            judged = [RewardPair(await self._request(before), await self._request(after)) for before, after in pairs]
            self.screen.rewards(judged)
            return judged

    async def _request(self, reply: Exchange) -> RequestView:
        return await asyncio.to_thread(self.admin.request, reply.request_id)

    async def _take_steps(self, body: RunBody) -> RunView:
        """Start a run and follow it until its steps are done, or it has ended early."""
        with self.screen.stage("Tune on what was answered: a GRPO run of one LoRA adapter"):
            run = await asyncio.to_thread(self.admin.start, body)
            with self.screen.run_progress(run.num_steps) as progress:
                while not run.state.final and run.steps_done < run.num_steps:
                    await asyncio.sleep(_POLL_S)
                    run = await asyncio.to_thread(self.admin.run, run.id)
                    progress.show(run)
            return run

    async def _swap(self, run_id: str, shown: Sequence[DemoBrief]) -> tuple[RunView, Exchange, SwapRecord]:
        """Publish, and go back and forth, while clients go on asking; the tuned policy's greedy reply after that."""
        with self.screen.stage(f"Gate, publish and swap policies while {_NUM_CLIENTS} clients go on asking"):
            self.screen.say("the gate compares the candidate with the untuned model on held-out prompts")
            flips: list[Flip] = []
            async with Traffic(self.tenant, shown, num_clients=_NUM_CLIENTS) as traffic:
                run = await self._published(run_id)
                self.screen.evaluation(checked_evaluation(run))
                version = run.published[-1]
                flips.append(Flip(self.clock.now_s, version, "published"))
                await traffic.more_replies(version, _REPLIES_PER_POLICY)
                for target in (BASE_VERSION, version):
                    flips.append(await self._activate(target))
                    await traffic.more_replies(target, _REPLIES_PER_POLICY)
            swap = swap_record(traffic.answers, flips)
            self.screen.swap(swap)
            check_swap(swap)
            return run, await self._greedy(shown[0]), swap

    async def _roll_back(self, original: Exchange) -> Exchange:
        with self.screen.stage("Roll back to the untuned model"):
            await self._activate(BASE_VERSION)
            again = await self._greedy(original.brief)
            self.screen.replies([original, again])
            check_same(original, again)
            self.screen.say("the greedy reply is the first one again, word for word")
            return again

    async def _published(self, run_id: str) -> RunView:
        """The run once it has ended well. Raises DemoFailed."""
        while True:
            run = await asyncio.to_thread(self.admin.run, run_id)
            if run.state.final:
                break
            await asyncio.sleep(_POLL_S)
        if run.state is not RunState.SUCCEEDED:
            raise DemoFailed(f"the tuning run must succeed, got {run.state.value}: {run.reason}")
        return run

    async def _activate(self, version: int) -> Flip:
        policy = await asyncio.to_thread(self.admin.activate, version)
        return Flip(self.clock.now_s, policy.version, "activated")

    async def _greedy(self, brief: DemoBrief) -> Exchange:
        """A greedy reply, sampled alone."""
        return succeeded(await self.tenant.write(brief, temperature=0.0))


def succeeded(answer: Exchange | Failure) -> Exchange:
    """The exchange. Raises DemoFailed for a failure."""
    if isinstance(answer, Failure):
        raise DemoFailed(f"every brief must be answered, got {answer.reason}")
    return answer


def checked_evaluation(run: RunView) -> EvaluationView:
    """The run's held-out comparison. Raises DemoFailed when the reward fell by more than MAX_FALL."""
    evaluation = run.evaluation
    if evaluation is None or evaluation.reward is None or evaluation.baseline_reward is None:
        raise DemoFailed("the run must be evaluated on held-out prompts, got no evaluation")
    if evaluation.reward < evaluation.baseline_reward - MAX_FALL:
        raise DemoFailed(
            f"the held-out reward must not fall by more than {MAX_FALL:g}, got {evaluation.baseline_reward:.3f} before "
            f"and {evaluation.reward:.3f} after"
        )
    return evaluation


def shortened(text: str) -> str:
    """What an editor makes of a reply that is too long: its first words, as many as the brief allows."""
    return " ".join(text.split()[:MAX_WORDS])


def check_said(request: RequestView) -> None:
    """Raises DemoFailed unless a request shows a reward and both pieces of feedback."""
    kinds = [piece.kind.value for piece in request.feedback]
    if sorted(kinds) != ["edit", "rating"]:
        raise DemoFailed(f"the request must show its edit and its rating, got {', '.join(kinds) or 'no feedback'}")


def swap_record(answers: Sequence[Exchange | Failure], flips: Sequence[Flip]) -> SwapRecord:
    """What clients saw, and when the policy changed."""
    return SwapRecord(
        exchanges=tuple(answer for answer in answers if isinstance(answer, Exchange)),
        failures=tuple(answer for answer in answers if isinstance(answer, Failure)),
        flips=tuple(flips),
    )


def check_swap(swap: SwapRecord) -> None:
    """Raises DemoFailed when a request failed, a version answered nobody, or nobody was asking during a change."""
    if swap.failures:
        raise DemoFailed(f"no request may fail, got {len(swap.failures)} failed: {swap.failures[0].reason}")
    for flip in swap.flips:
        if flip.version not in swap.replies_by_version:
            raise DemoFailed(f"policy {flip.version} must answer while it is active, got no reply from it")
        if swap.in_flight_at(flip) == 0:
            raise DemoFailed(f"requests must be in flight at every change, got none at {flip.at_s:.1f} s")


def check_same(original: Exchange, again: Exchange) -> None:
    """Raises DemoFailed when a rolled back policy answers otherwise than it did."""
    if again.policy_version != original.policy_version:
        raise DemoFailed(f"policy {original.policy_version} must answer again, got {again.policy_version}")
    if again.text != original.text:
        raise DemoFailed(f"a rollback must bring the same greedy reply, got {again.text!r} after {original.text!r}")
