"""A whole run whose candidate has lost one language: the gate stands between it and the users."""

from pathlib import Path

import pytest

from agent.ports import GenerateRequest
from rewards.score import Sample
from tests.trainer.samples import episode
from tests.trainer.tuning import CONFIG, Node
from trainer.config import GateConfig
from trainer.gate_records import GateVerdict
from trainer.records import RunRequest, RunState, RunStatus

LANGUAGES = ("de", "fr", "pl")
GERMAN = RunRequest(languages=("de",), gate=True)
POLISH_MARK = ord("p") % 48
TEXTS = {
    "de": "Dieser Satz ist auf Deutsch geschrieben.",
    "pl": "To zdanie jest napisane po polsku.",
    "en": "This sentence was written in English.",
}


def _node(root: Path, *, lost: bool, gate: GateConfig) -> Node:
    """Half of the German and Polish prompts are held out, French has none.

    Candidates answer Polish prompts in English when ``lost``. Every held-out reply is graded 0.5, whatever its
    language: the reward does not notice.
    """

    def reply(request: GenerateRequest) -> str:
        if not request.request_id.startswith("held-out"):
            return f"a{request.sampling.seed}"
        polish = POLISH_MARK in request.prompt_token_ids[1:]
        return TEXTS[("en" if lost and request.policy_version else "pl") if polish else "de"]

    def judge(sample: Sample) -> float:
        return 0.5 if sample.text in TEXTS.values() else float(int(sample.text[1:]) % 2 == 0)

    episodes = [episode(number, language) for language in ("de", "pl") for number in range(1, 30)]
    config = CONFIG.model_copy(update={"gate": gate})
    return Node(root, episodes, reply=reply, judge=judge, held_out_share=0.5, config=config, languages=LANGUAGES)


async def _carry_out(node: Node) -> RunStatus:
    run = await node.runs.start(GERMAN)
    while not run.state.final:
        if node.runs._running is not None and node.runs._running.task is not None:
            await node.runs._running.task
        run = await node.runs.status(run.id)
    return run


async def test_a_run_in_german_may_not_cost_the_poles(tmp_path: Path) -> None:
    """Drawing German prompts alone, it is rejected for Polish, in words and figures; users stay where they were."""
    node = _node(tmp_path, lost=True, gate=GateConfig(num_prompts=12, num_replies=24))
    run = await _carry_out(node)
    assert run.state is RunState.REJECTED
    assert str(run.reason).startswith("pl: language fidelity fell from 1.000 to 0.000 (-1.000, ")
    assert run.evaluation is not None
    assert run.evaluation.report is not None
    assert list(run.evaluation.report.failed) == ["pl"]
    assert (run.published, node.sink.active_version, node.slots.installed) == ((), 0, ())


@pytest.mark.parametrize(("undetermined", "state"), [("publish", "succeeded"), ("reject", "rejected")])
async def test_a_language_without_prompts_goes_as_configured(tmp_path: Path, undetermined: str, state: str) -> None:
    """Polish and German pass; French, which a tenant has and nobody has asked for yet, is undetermined."""
    gate = GateConfig.model_validate({"num_prompts": 12, "num_replies": 12, "undetermined": undetermined})
    node = _node(tmp_path, lost=False, gate=gate)
    run = await _carry_out(node)
    assert run.state == state
    assert run.evaluation is not None
    assert run.evaluation.report is not None
    assert run.evaluation.report.verdict is GateVerdict.UNDETERMINED
    assert run.evaluation.report.undetermined == {"fr": "no held-out prompt, at least 8 are needed"}
    assert run.evaluation.report.num_prompts == {"de": 12, "fr": 0, "pl": 12}


async def test_the_report_is_kept_with_the_policy(tmp_path: Path) -> None:
    """As the run has it, under the same exam."""
    node = _node(tmp_path, lost=False, gate=GateConfig(num_prompts=12, num_replies=12))
    run = await _carry_out(node)
    (version,) = run.published
    assert run.evaluation is not None
    assert (await node.ledger.policy(version)).evaluation == run.evaluation
