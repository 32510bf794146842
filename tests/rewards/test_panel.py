"""The panel: routing by tenant and language, composition, and what happens when a judge cannot judge."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.errors import InvalidConfig
from agent.fakes import FixedDetector
from rewards.config import RewardModelConfig, RewardsConfig
from rewards.fakes import FakeRewardModel
from rewards.panel import Panel, build_panel, gate, work
from rewards.score import RewardModel, Sample, Score, Ungradable
from tests.only_parts import only

_GERMAN = "Dieser Satz ist auf Deutsch."
_ENGLISH = "This sentence is not German."
_CONTRACT = LanguageContract(FixedDetector({"satz": "de", "sentence": "en"}))

Plug = Callable[[str, RewardModel], str]


@pytest.fixture
def plug() -> Iterator[Plug]:
    """Makes a module with a factory of a reward model, as a user's own package would be."""
    names: list[str] = []

    def make(name: str, model: RewardModel) -> str:
        module = ModuleType(f"plugged_{name}")
        module.make = lambda: model  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        names.append(module.__name__)
        return f"{module.__name__}:make"

    yield make
    for name in names:
        del sys.modules[name]


def _tenant(**reward_weights: float) -> TenantSettings:
    return TenantSettings(id="acme", languages={"de": LanguageSettings(reward_weights=reward_weights)})


def _panel(weights: Mapping[str, float], *tenants: TenantSettings, extra: Mapping[str, str] | None = None) -> Panel:
    return build_panel(RewardsConfig(weights=only(**weights), extra=dict(extra or {})), tenants, _CONTRACT)


def _sample(text: str, *, tenant: str = "acme", language: str = "de", max_words: int | None = None) -> Sample:
    brief = Brief(tenant, Kind.CREATE, language, instructions="Brot", max_words=max_words)
    return Sample(brief, text, FinishReason.STOP, num_tokens=9)


def _score(panel: Panel, sample: Sample) -> Score:
    (answer,) = panel.score([sample])
    assert isinstance(answer, Score), answer
    return answer


def test_total_is_the_gate_times_the_weighted_mean() -> None:
    """Half German: gate 0.5 times (1 x 0.5 + 3 x 1) / 4 = 0.4375; length is absent without bounds."""
    panel = _panel({"fidelity": 1, "length": 9, "repetition": 3})
    answer = _score(panel, _sample(f"{_GERMAN} {_ENGLISH}"))
    assert answer.parts == {"fidelity": 0.5, "repetition": 1.0}
    assert answer.value == pytest.approx(0.4375)
    assert answer.judge == "panel@3"


def test_a_length_that_was_asked_for_is_part_of_the_mean() -> None:
    """Five words against at most four: length 1 - 1/4 = 0.75; (1 x 1 + 1 x 0.75) / 2 = 0.875."""
    answer = _score(_panel({"fidelity": 1, "length": 1}), _sample(_GERMAN, max_words=4))
    assert answer.parts == {"fidelity": 1.0, "length": 0.75}
    assert answer.value == pytest.approx(0.875)


@pytest.mark.parametrize(("fidelity", "factor"), [(None, 1.0), (1.0, 1.0), (0.7, 0.7), (0.5, 0.5), (0.49, 0.0)])
def test_the_gate_has_a_hard_floor(fidelity: float | None, factor: float) -> None:
    """Below one half in the wanted language a reply is worth nothing."""
    assert gate(fidelity) == factor


def test_a_reply_in_the_wrong_language_is_worth_nothing() -> None:
    """Fidelity 0 closes the gate whatever the other parts are."""
    assert _score(_panel({"fidelity": 1, "substance": 99}), _sample(_ENGLISH)).value == 0.0


@pytest.mark.parametrize("text", ["", " \n ", "!!!", "👍"])
@pytest.mark.parametrize("weights", [{"fidelity": 1.0}, {"length": 1.0}, {"substance": 1.0, "fidelity": 0.0}])
def test_an_empty_reply_scores_zero_by_rule(text: str, weights: dict[str, float]) -> None:
    """Nothing or symbols alone score 0.0 with substance 0, whatever is weighed; they are not Ungradable."""
    answer = _score(_panel(weights), _sample(text))
    assert (answer.value, dict(answer.parts)) == (0.0, {"substance": 0.0})


def test_undetermined_language_makes_the_reply_ungradable() -> None:
    """Fidelity has a weight and cannot be told: there is no score from the other parts alone."""
    (answer,) = _panel({"fidelity": 1, "repetition": 1}).score([_sample("Ok dann")])
    assert isinstance(answer, Ungradable)
    assert answer.reason.startswith("fidelity: ")


def test_without_a_fidelity_weight_the_gate_is_off() -> None:
    """Neither an English nor an undetermined reply is held back when fidelity weighs 0."""
    panel = _panel({"fidelity": 0, "repetition": 1})
    for text in (_ENGLISH, "Ok dann"):
        answer = _score(panel, _sample(text))
        assert (answer.value, dict(answer.parts)) == (1.0, {"repetition": 1.0})


def test_no_part_with_a_weight_is_ungradable() -> None:
    """Length alone, and the brief states none: nothing to judge by."""
    (answer,) = _panel({"length": 1}).score([_sample(_GERMAN)])
    assert isinstance(answer, Ungradable)


def test_weights_are_overridden_per_tenant_and_language() -> None:
    """The tenant's German turns the gate off; its other languages and other tenants keep the node's weights."""
    panel = _panel({"fidelity": 1, "repetition": 1}, _tenant(fidelity=0))
    ours, other_tenant = panel.score([_sample(_ENGLISH), _sample(_ENGLISH, tenant="other")])
    assert isinstance(ours, Score)
    assert isinstance(other_tenant, Score)
    assert (ours.value, other_tenant.value) == (1.0, 0.0)


def test_brand_terms_of_the_tenant_reach_fidelity() -> None:
    """A tenant's name with a marker of another language does not count."""
    settings = LanguageSettings(brand_terms=("Sentence Inc",))
    tenant = TenantSettings(id="acme", languages={"de": settings})
    answer = _score(_panel({"fidelity": 1}, tenant), _sample("Ein Satz von Sentence Inc auf Deutsch."))
    assert answer.parts["fidelity"] == 1.0


def test_a_reward_model_contributes_its_value(plug: Plug) -> None:
    """(1 x 1 + 3 x 0.2) / 4 = 0.4, with the gate open."""
    extra = {"taste": plug("taste", FakeRewardModel(lambda sample: 0.2))}
    answer = _score(_panel({"fidelity": 1, "taste": 3}, extra=extra), _sample(_GERMAN))
    assert answer.parts == {"fidelity": 1.0, "taste": 0.2}
    assert answer.value == pytest.approx(0.4)


def test_a_reward_model_sees_one_batch_of_what_it_weighs_in(plug: Plug) -> None:
    """Empty replies and tenants without a weight for it are not sent to it; the order of answers is kept."""
    model = FakeRewardModel(lambda sample: len(sample.text) / 100)
    panel = _panel({"repetition": 1}, _tenant(taste=1), extra={"taste": plug("taste", model)})
    samples = [_sample("ab"), _sample(""), _sample("abc", tenant="other"), _sample("abcd")]
    answers = panel.score(samples)
    assert [[sample.text for sample in batch] for batch in model.batches] == [["ab", "abcd"]]
    # Means of repetition 1 and taste: (1 + 0.02) / 2, by rule 0, repetition alone, (1 + 0.04) / 2
    assert [answer.value for answer in answers if isinstance(answer, Score)] == pytest.approx([0.51, 0.0, 1.0, 0.52])


def test_an_ungradable_answer_of_a_model_makes_the_reply_ungradable(plug: Plug) -> None:
    """Its reason and its judge are kept."""
    extra = {"taste": plug("taste", FakeRewardModel(lambda sample: Ungradable("no opinion", "fake@1")))}
    (answer,) = _panel({"repetition": 1, "taste": 1}, extra=extra).score([_sample(_GERMAN)])
    assert answer == Ungradable("taste: no opinion", "fake@1")


def test_an_exception_of_a_model_is_ungradable_and_counted(plug: Plug) -> None:
    """Each reply of the failed batch is Ungradable with the reason; none becomes a number; others go on."""
    model = FakeRewardModel()
    model.failure = RuntimeError("out of memory")
    panel = _panel({"repetition": 1}, _tenant(taste=1), extra={"taste": plug("taste", model)})
    first, second, other = panel.score([_sample("ab"), _sample("cd"), _sample("ef", tenant="other")])
    assert first == second == Ungradable("taste: RuntimeError: out of memory", "taste")
    assert isinstance(other, Score)
    assert panel.failures == {"taste": 2}


def test_reward_models_are_asked_by_one_thread_at_a_time(plug: Plug) -> None:
    """Four threads share the panel; a judge that counts who is inside it never finds a second one."""
    inside, most = 0, 0

    def judge(sample: Sample) -> float:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return 0.5

    panel = _panel({"taste": 1}, extra={"taste": plug("taste", FakeRewardModel(judge))})
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(panel.score, [[_sample("ab")]] * 4))
    assert (len(answers), most) == (4, 1)


class _Short(FakeRewardModel):
    """Forgets to answer."""

    def score(self, samples: object) -> list[Score | Ungradable | None]:
        return []


@pytest.mark.parametrize("model", [_Short(), FakeRewardModel(lambda sample: 7.0)])
def test_a_model_that_breaks_its_contract_is_counted(plug: Plug, model: RewardModel) -> None:
    """Too few answers, and values outside of [-1, 1], are failures of the judge."""
    panel = _panel({"taste": 1}, extra={"taste": plug("taste", model)})
    (answer,) = panel.score([_sample(_GERMAN)])
    assert isinstance(answer, Ungradable)
    assert panel.failures == {"taste": 1}


@pytest.mark.parametrize(
    ("weights", "tenant", "extra", "field"),
    [
        ({"fidelty": 1.0}, {}, {}, "rewards.weights.fidelty"),
        ({}, {"taste": 1.0}, {}, "tenants.acme.languages.de.reward_weights.taste"),
        ({}, {}, {"taste": "json:loads"}, "rewards.weights.taste"),
        ({"length": 1.0}, {}, {"length": "json:loads"}, "rewards.extra.length"),
        ({"taste": 1.0}, {}, {"taste": "json"}, "rewards.extra.taste"),
        ({"taste": 1.0}, {}, {"taste": "no_such_package.x:make"}, "rewards.extra.taste"),
        ({"taste": 1.0}, {}, {"taste": "json:no_such_factory"}, "rewards.extra.taste"),
        ({"taste": 1.0}, {}, {"taste": "builtins:dict"}, "rewards.extra.taste"),
    ],
)
def test_a_wrong_configuration_is_refused(
    weights: dict[str, float], tenant: dict[str, float], extra: dict[str, str], field: str
) -> None:
    """Unknown weight names, judges without a weight and judges that cannot be made name their field."""
    with pytest.raises(InvalidConfig) as caught:
        _panel(weights, _tenant(**tenant), extra=extra)
    assert caught.value.field == field


def test_the_default_weights_know_every_rule() -> None:
    """The shipped configuration judges by all eleven rules; the panel is a reward model itself.

    Formal address, brand and banned terms come from the tenant, the price from the text that is to be rewritten.
    """
    settings = LanguageSettings(address="formal", brand_terms=("Satzbau",), banned_terms=("billig",))
    panel: RewardModel = build_panel(
        RewardsConfig(), [TenantSettings(id="acme", languages={"de": settings})], _CONTRACT
    )
    brief = Brief("acme", Kind.REWRITE, "de", text="Satzbau für 49 €.", max_words=99)
    text = "Dieser Satz von Satzbau kostet Sie 49 €."
    (answer,) = panel.score([Sample(brief, text, FinishReason.STOP, num_tokens=9)])
    assert isinstance(answer, Score)
    assert set(answer.parts) == set(RewardsConfig().weights)
    assert answer.value == 1.0


def test_a_fault_costs_its_weight() -> None:
    """Fidelity 1 less 0.4 for a leak; without the leak the part is there and takes nothing."""
    panel = _panel({"fidelity": 1, "leakage": 0.4})
    assert _score(panel, _sample(_GERMAN)).value == 1.0
    assert _score(panel, _sample(f"{_GERMAN} <|im_end|>")).value == pytest.approx(0.6)


def test_faults_take_a_reward_down_to_minus_one() -> None:
    """A wrong language scores 0, less two faults of 0.8 each, kept at -1."""
    panel = _panel({"fidelity": 1, "leakage": 0.8, "format": 0.8})
    assert _score(panel, _sample(f"{_ENGLISH} <|im_end|>\x07")).value == -1.0


def test_a_reply_without_work_is_worth_nothing() -> None:
    """A refusal has fidelity and says nothing twice, but its substance of 0 leaves nothing of either."""
    panel = _panel({"fidelity": 1, "repetition": 1, "substance": 1})
    refusal = f"Als KI sage ich nichts. {_GERMAN}"
    assert _score(panel, _sample(refusal)).value == 0.0


@pytest.mark.parametrize(
    ("substance", "repetition", "factor"),
    [(None, None, 1.0), (1.0, 1.0, 1.0), (0.5, 0.8, 1.0), (0.25, 1.0, 0.5), (1.0, 0.4, 0.5), (0.25, 0.4, 0.25)],
)
def test_work_falls_with_either_part(substance: float | None, repetition: float | None, factor: float) -> None:
    """Below one half of the substance, and below four fifths of new text, what is left is worth its share."""
    assert work(substance, repetition) == pytest.approx(factor)


def test_no_factor_lifts_a_bad_reply(plug: Plug) -> None:
    """A mean of (1 - 3 x 1) / 4 = -0.5 stays where it is though the gate is half shut: fidelity is 1 here, work 0."""
    extra = {"taste": plug("taste", FakeRewardModel(lambda sample: -1.0))}
    panel = _panel({"substance": 1, "taste": 3}, extra=extra)
    assert _score(panel, _sample("Als KI sage ich nichts.")).value == pytest.approx(-0.75)


def test_a_reply_that_hides_its_language_does_not_escape_its_faults() -> None:
    """All in a code block: the language cannot be told, the leak can. It scores 0 - 0.5; without a fault, nothing."""
    panel = _panel({"fidelity": 1, "leakage": 0.5})
    hidden = _score(panel, _sample(f"```\n{_GERMAN}\n```"))
    assert hidden.value == pytest.approx(-0.5)
    assert isinstance(panel.score([_sample("Ok dann")])[0], Ungradable)


def test_terms_and_address_of_a_tenant_take_their_seats() -> None:
    """Banned terms and address of a new tenant hold from the next reply on."""
    panel = _panel({"fidelity": 1, "banned": 0.5, "register": 0.3})
    sample = _sample("Dieser Satz ist billiger für dich.")
    assert _score(panel, sample).parts.keys() == {"fidelity"}
    settings = LanguageSettings(address="formal", banned_terms=("billig",))
    panel.seat([TenantSettings(id="acme", languages={"de": settings})])
    answer = _score(panel, sample)
    assert answer.parts == {"fidelity": 1.0, "banned": 0.0, "register": 0.0}
    assert answer.value == pytest.approx(0.2)  # 1 - 0.5 - 0.3


def test_other_tenants_take_their_seats_at_once() -> None:
    """A tenant's new weights hold from the next reply on, and a tenant that is gone gets the node's again.

    Fidelity alone is 1; a length l that weighs as much gives (1 + l) / 2.
    """
    panel = _panel({"fidelity": 1.0})
    sample = _sample(_GERMAN, max_words=len(_GERMAN.split()) * 2 // 3)
    assert _score(panel, sample).value == pytest.approx(1.0)
    panel.seat([_tenant(length=1.0)])
    weighed = _score(panel, sample)
    assert weighed.value == pytest.approx((1 + weighed.parts["length"]) / 2)
    panel.seat([])
    assert _score(panel, sample).parts.keys() == {"fidelity"}


def test_a_part_that_a_model_does_not_judge_is_absent(plug: Plug) -> None:
    """German: (1 · fidelity 1 + 3 · −1) / 4 = −0.5; the other language's reply is worth its fidelity alone."""
    partial = FakeRewardModel(lambda sample: -1.0 if sample.brief.language == "de" else None)
    panel = _panel({"fidelity": 1, "taste": 3}, extra={"taste": plug("taste", partial)})
    german, english = _score(panel, _sample(_GERMAN)), _score(panel, _sample(_ENGLISH, language="en"))
    assert german.value == pytest.approx(-0.5)
    assert (english.value, english.parts) == (1.0, {"fidelity": 1.0})


def test_a_live_request_is_ranked_without_a_judge_that_is_late() -> None:
    """Tuning waits for it, ranking leaves the part out; both ask by the same weights."""
    config = RewardsConfig(weights=only(fidelity=1, taste=1), models={"taste": RewardModelConfig(model="org/m")})
    judge = FakeRewardModel()
    judge.late = True
    panel = build_panel(config, (), _CONTRACT, {"taste": judge})
    (tuned,), (ranked,) = panel.score([_sample(_GERMAN)]), panel.live.score([_sample(_GERMAN)])
    assert isinstance(tuned, Score)
    assert isinstance(ranked, Score)
    assert tuned.parts.keys() == {"fidelity", "taste"}
    assert ranked.parts.keys() == {"fidelity"}


def test_shared_models_are_asked_by_many_threads_at_a_time() -> None:
    """Two threads meet inside the judge: a live request does not wait until tuning has been answered."""
    meeting = threading.Barrier(2, timeout=10)

    def judge(sample: Sample) -> float:
        meeting.wait()
        return 0.5

    config = RewardsConfig(weights=only(taste=1), models={"taste": RewardModelConfig()})
    panel = build_panel(config, (), _CONTRACT, {"taste": FakeRewardModel(judge)})
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(panel.score, [[_sample("ab")]] * 2))
    assert [type(answer) for (answer,) in answers] == [Score, Score]


@pytest.mark.parametrize(
    ("weights", "models", "field"),
    [
        ({}, {"taste": RewardModelConfig()}, "rewards.weights.taste"),
        ({"length": 1.0}, {"length": RewardModelConfig()}, "rewards.models.length"),
    ],
)
def test_a_wrong_reward_model_is_refused(
    weights: dict[str, float], models: dict[str, RewardModelConfig], field: str
) -> None:
    """One that nothing weighs, and one with a rule's name."""
    with pytest.raises(InvalidConfig) as caught:
        build_panel(RewardsConfig(weights=weights, models=models), (), _CONTRACT, {"taste": FakeRewardModel()})
    assert caught.value.field == field
