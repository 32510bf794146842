"""The chat agent, on the shipped fakes."""

import pytest

from agent.brief import Kind
from agent.chat import ChatAgent, Dialogue
from agent.completion import Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.dialogue import Role, Turn
from agent.errors import InvalidBrief
from agent.fakes import CharEncoder, FakeEngine, FixedDetector, MemoryJournal
from agent.keeper import EpisodeKeeper
from agent.ports import Delta
from agent.prompt import PromptLibrary
from agent.repair import RepairMode
from agent.repairer import Repairer
from agent.rewriting import SentenceWriter
from agent.verdict import Verdict
from agent.writer import TenantLanguages

_PROMPTS = PromptLibrary.load()
_SAMPLING = Sampling(max_tokens=100, seed=5)
_TURNS = (
    Turn(Role.SYSTEM, "Be brief."),
    Turn(Role.USER, "Hallo"),
    Turn(Role.ASSISTANT, "Ja?"),
    Turn(Role.USER, "Schreib einen satz."),
)


def _number(request_id: str) -> int:
    """0 for `r1`, 1 for `r1-1` and for `r1-retry`."""
    suffix = request_id.partition("-")[2]
    return 1 if suffix == "retry" else int(suffix or 0)


class _Rig:
    def __init__(self, *texts: str) -> None:
        self.engine = FakeEngine(lambda request: texts[_number(request.request_id)], version=3)
        self.journal = MemoryJournal()
        tenant = TenantSettings(
            id="acme", languages={"de": LanguageSettings(brand_terms=("Sentence Inc",)), "en": LanguageSettings()}
        )
        self.agent = ChatAgent(
            self.engine,
            CharEncoder(),
            LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})),
            EpisodeKeeper(self.journal, lambda tenant, error: None),
            TenantLanguages([tenant]),
            Repairer(self.engine, SentenceWriter(self.engine, CharEncoder(), _PROMPTS), RepairMode.AUTO, 5.0),
        )


def _dialogue(*languages: str, **fields: object) -> Dialogue:
    return Dialogue("acme", _TURNS, languages or ("de",), **fields)  # type: ignore[arg-type]


async def test_a_conversation_is_answered_judged_and_kept() -> None:
    """The prompt is the conversation alone; the episode's brief is of kind `chat`, with the last message as its
    instructions and what came before as its text."""
    rig = _Rig("Ein satz von Sentence Inc.")
    reply = await rig.agent.answer(_dialogue(end_user="u1"), _SAMPLING, request_id="r1")
    assert (reply.choices[0].reply.text, reply.language) == ("Ein satz von Sentence Inc.", "de")
    assert (reply.verdict, reply.policy_version) == (Verdict.PASS, 3)
    (request,) = rig.engine.requests
    assert CharEncoder.decode(request.prompt_token_ids) == (
        "system: Be brief.user: Halloassistant: Ja?user: Schreib einen satz."
    )
    (episode,) = rig.journal.episodes
    assert (episode.id, episode.brief.kind, episode.brief.end_user) == ("r1", Kind.CHAT, "u1")
    assert episode.brief.instructions == "Schreib einen satz."
    assert episode.brief.text == "system: Be brief.\nuser: Hallo\nassistant: Ja?"
    assert (episode.prompt.version, episode.prompt.kind) == ("chat", "chat")


async def test_choices_have_seeds_and_verdicts_of_their_own() -> None:
    """Three choices from seed 5 use 5, 6 and 7; the reply has failed when one has; the prompt is counted once."""
    rig = _Rig("Ein satz.", "One sentence.", "Noch ein satz.")
    reply = await rig.agent.answer(_dialogue(), _SAMPLING, request_id="r1", num_choices=3)
    assert [request.sampling.seed for request in rig.engine.requests] == [5, 6, 7]
    verdicts = [choice.reply.verdict.verdict for choice in reply.choices]
    assert verdicts == [Verdict.PASS, Verdict.FAILED, Verdict.PASS]
    assert reply.verdict is Verdict.FAILED
    assert reply.prompt_tokens == len(rig.engine.requests[0].prompt_token_ids)
    assert reply.completion_tokens == len("Ein satz.") + len("One sentence.") + len("Noch ein satz.") + 3
    assert len(rig.journal.episodes[0].completions) == 3


async def test_a_verdict_of_part_of_the_choices_is_none() -> None:
    """One choice that passed and one that cannot be told is undetermined, not passed."""
    rig = _Rig("Ein satz.", "17")
    reply = await rig.agent.answer(_dialogue(), _SAMPLING, request_id="r1", num_choices=2)
    assert reply.verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize(
    ("languages", "expected"), [(("en", "de"), "de"), (("en",), "en"), (("en", "fr"), "en")], ids=str
)
async def test_the_language_is_that_of_the_last_message(languages: tuple[str, ...], expected: str) -> None:
    """Among those that it may be; where it is none of them, the first; where there is one, that one."""
    rig = _Rig("Ein satz.")
    dialogue = Dialogue("acme", _TURNS, languages)
    reply = await rig.agent.answer(dialogue, _SAMPLING, request_id="r1")
    assert reply.language == expected


async def test_a_version_that_is_named_answers() -> None:
    """Without one it is the active policy, which is 3 here."""
    rig = _Rig("Ein satz.")
    reply = await rig.agent.answer(_dialogue(policy_version=2), _SAMPLING, request_id="r1")
    assert (reply.policy_version, rig.engine.requests[0].policy_version) == (2, 2)


async def test_listeners_hear_their_own_choice() -> None:
    """Deltas of a choice go to its listener; the number of listeners is that of the choices."""
    rig = _Rig("Ein satz.", "Noch ein satz.")
    heard: tuple[list[Delta], list[Delta]] = ([], [])
    listeners = [heard[0].append, heard[1].append]
    await rig.agent.answer(_dialogue(), _SAMPLING, request_id="r1", num_choices=2, listeners=listeners)
    assert ["".join(delta.text for delta in deltas) for deltas in heard] == ["Ein satz.", "Noch ein satz."]
    with pytest.raises(ValueError, match="every choice needs its listener, got 1 for 2"):
        await rig.agent.answer(_dialogue(), _SAMPLING, request_id="r1", num_choices=2, listeners=listeners[:1])


async def test_tokens_are_told_and_not_kept() -> None:
    """They are there when they are asked for; the journal has their ids already."""
    rig = _Rig("satz")
    reply = await rig.agent.answer(_dialogue(), Sampling(100, top_logprobs=0), request_id="r1")
    assert "".join(token.chosen.text for token in reply.choices[0].tokens) == "satz"
    assert rig.journal.episodes[0].completions[0].tokens == ()


@pytest.mark.parametrize(
    "turns", [(), (Turn(Role.USER, " "),), (Turn(Role.USER, "Hallo"), Turn(Role.ASSISTANT, "Ja"))], ids=len
)
def test_a_conversation_waits_for_an_answer(turns: tuple[Turn, ...]) -> None:
    """Its last message is a user's, and says something."""
    with pytest.raises(InvalidBrief, match="messages: must end with a message of the user"):
        Dialogue("acme", turns, ("de",))


_WRONG, _RIGHT = "This sentence is an English one indeed.", "Dieser satz ist auf Deutsch geschrieben."


async def test_an_answer_in_a_wrong_language_is_sampled_again_when_the_caller_named_the_language() -> None:
    """Both samples are kept, and the tokens of both are counted."""
    rig = _Rig(_WRONG, _RIGHT)
    reply = await rig.agent.answer(_dialogue(names_language=True), _SAMPLING, request_id="r1")
    assert (reply.choices[0].reply.text, reply.verdict) == (_RIGHT, Verdict.REPAIRED)
    assert reply.completion_tokens == len(_WRONG) + 1 + len(_RIGHT) + 1
    (episode,) = rig.journal.episodes
    assert (len(episode.completions), episode.served, episode.served_as_sampled) == (2, 1, True)


async def test_other_answers_in_a_wrong_language_are_served_as_they_are() -> None:
    """The language was guessed, there are several choices, or a stream has told the answer already."""
    for fields, options in (
        ({}, {}),
        ({"names_language": True}, {"num_choices": 2}),
        ({"names_language": True}, {"listeners": [lambda delta: None]}),
    ):
        rig = _Rig(_WRONG, _WRONG)
        reply = await rig.agent.answer(_dialogue(**fields), _SAMPLING, request_id="r1", **options)
        assert (reply.verdict, reply.choices[0].reply.repair) == (Verdict.FAILED, None)
        assert len(rig.engine.requests) == len(reply.choices)
