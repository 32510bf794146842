"""The panel: every judge of a tenant and language, and how their parts make one reward.

    mean  = sum(w_i * part_i) / sum(w_i)            over the parts that are present, faults not among them
    total = gate(fidelity) * work(substance, repetition) * mean - sum(w_j * (1 - part_j))     over the faults

    gate(f) = 0 when f < 0.5, else f                        1 when fidelity has no weight
    work(s, r) = min(1, s / 0.5) * min(1, r / 0.8)          without the factor of a part that has no weight

The gate keeps the language: tuning without one drifts towards the model's dominant language while its reward rises
(arXiv 2506.05850). Work does the same for replies that only look like one (a refusal, a question back, a copy, a
loop), which no other part finds fault with. Neither lifts a mean below 0. Faults (rewards.faults) are taken off: a
reply without one keeps its reward to the last digit. Their weight is what a whole fault costs. They take all that a
reply has earned and no more, for below 0 it would be better to say nothing, which has no faults; from one that has
earned nothing they are taken down to -1.

A reply without a letter or digit scores 0.0 by rule, with the one part ``substance`` at 0. When a judge with a weight
cannot grade a reply the whole reply is Ungradable, since a mean over other parts would be another reward. One case is
neither: a reply whose language cannot be told and that has a fault (all of it in a code block, hidden characters
between all letters) scores 0 less its faults, or breaking the text on purpose would be a way out of them. A part that
does not apply (no length was asked for) is absent and weighs nothing.

Weights come from `rewards.weights`, overridden per tenant and language by `reward_weights`; either names what changes
and leaves the rest. A judge that weighs nothing is not asked.

A live request's replies are ranked by the same judges (``live``): a shared reward model is then asked within the time
that the request can wait, and is absent when it could not answer.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.errors import InvalidConfig
from agent.language import primary_code
from rewards.config import RewardsConfig
from rewards.faults import fault_rules
from rewards.fidelity import FIDELITY
from rewards.part import Rule, RuleInput
from rewards.parts import JudgedParts, PartsDelegate, PartsRequest, all_rules, is_stateless, judge_rules
from rewards.plugged import load_model
from rewards.repetition import REPETITION
from rewards.score import RewardModel, Sample, Score, SharedRewardModel, Ungradable
from rewards.substance import SUBSTANCE, is_empty

_Answers = Sequence[Score | Ungradable | None]
_Ask = Callable[[Sequence[Sample]], _Answers]

FIDELITY_FLOOR = 0.5
"""A reply with less than this share in the wanted language is worth nothing."""
ENOUGH_SUBSTANCE = 0.5
"""A reply with less of its work done than that loses its other merits with it."""
ENOUGH_NEW = 0.8
"""So does one that says more than a fifth of its text again: padding must not pay, whatever length was asked for."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """What the panel applies to one tenant and language."""

    weights: Mapping[str, float]
    language: LanguageSettings = field(default_factory=LanguageSettings)

    def weight(self, part: str) -> float:
        return self.weights.get(part, 0.0)


@dataclass(slots=True)
class _Sheet:
    """The parts of one reply while they come in."""

    seat: _Seat
    parts: dict[str, float] = field(default_factory=dict)
    ungradable: Ungradable | None = None

    def enter(self, part: str, value: float | Ungradable | None) -> None:
        if isinstance(value, Ungradable):
            self.ungradable = self.ungradable or Ungradable(f"{part}: {value.reason}", value.judge)
        elif value is not None:
            self.parts[part] = value


class Panel:
    """Judges replies of all tenants; itself a RewardModel. Built by build_panel.

    Threads may share one: tuning and live requests do. Reward models are asked by one thread at a time, unless they
    are shared ones. Replies that nobody waits for may be judged by a delegate (``delegate``), as far as it can.
    """

    name = "panel"
    revision = "3"

    def __init__(
        self,
        rules: Sequence[Rule],
        models: Mapping[str, RewardModel],
        default: _Seat,
        seats: Mapping[tuple[str, str], _Seat],
        shared: Mapping[str, SharedRewardModel] | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._faults = frozenset(rule.name for rule in fault_rules())
        self._models = dict(models)
        self._shared = dict(shared or {})
        self._default = default
        self._seats = dict(seats)
        self._failures: Counter[str] = Counter()
        self._asking = threading.Lock()
        self._delegate: PartsDelegate | None = None

    def delegate(self, delegate: PartsDelegate) -> None:
        """Let somebody else judge what plain code can, except for live requests' replies."""
        self._delegate = delegate

    @property
    def has_delegate(self) -> bool:
        """Whether replies that nobody waits for are judged out of the way of those that somebody waits for."""
        return self._delegate is not None

    @property
    def stateless(self) -> frozenset[str]:
        """Judges of `rewards.extra` that a delegate may have, too."""
        return frozenset(name for name, model in self._models.items() if is_stateless(model))

    @property
    def failures(self) -> Mapping[str, int]:
        """Replies that a judge failed on, by raising or by breaking its contract, since the start; by judge."""
        return dict(self._failures)

    def seat(self, tenants: Sequence[TenantSettings]) -> None:
        """Judge by these tenants' weights and terms from now on; their names were checked when they were set."""
        self._seats = _seats(self._default.weights, tenants)

    def weights(self, tenant: str, language: str) -> Mapping[str, float]:
        """What each part weighs for a tenant and language."""
        return dict(self._seats.get((tenant, primary_code(language)), self._default).weights)

    @property
    def live(self) -> "LivePanel":
        """The same judges and weights for replies that somebody is waiting for."""
        return LivePanel(self)

    def score(self, samples: Sequence[Sample], *, live: bool = False) -> list[Score | Ungradable]:
        """Judge each sample by the judges and weights of its tenant and language, in order.

        Tenants and languages that the configuration does not know (any longer) get `rewards.weights`.
        """
        sheets = [_Sheet(self._seat(sample)) for sample in samples]
        graded = [(sample, sheet) for sample, sheet in zip(samples, sheets, strict=True) if not is_empty(sample.text)]
        judged = self._judged([_request(sample, sheet.seat) for sample, sheet in graded], live=live)
        for (_, sheet), said in zip(graded, judged.rules, strict=True):
            for part, value in said.items():
                sheet.enter(part, value)
        for name, ask in self._judges(live, judged):
            self._apply_model(name, ask, [(sample, sheet) for sample, sheet in graded if sheet.seat.weight(name) > 0])
        return [self._total(sample, sheet) for sample, sheet in zip(samples, sheets, strict=True)]

    def _seat(self, sample: Sample) -> _Seat:
        return self._seats.get((sample.brief.tenant, primary_code(sample.brief.language)), self._default)

    def _judged(self, requests: Sequence[PartsRequest], *, live: bool) -> JudgedParts:
        """By the delegate, or by the rules here."""
        if self._delegate is not None and requests and not live:
            judged = self._delegate.judge(requests)
            if judged is not None:
                return judged
        return JudgedParts([judge_rules(self._rules, request) for request in requests], {})

    def _judges(self, live: bool, judged: JudgedParts) -> Iterator[tuple[str, _Ask]]:
        for name, model in self._models.items():
            said = judged.models.get(name)
            yield name, partial(self._ask_alone, model) if said is None else partial(_already, said)
        for name, shared in self._shared.items():
            yield name, shared.score_live if live else shared.score

    def _ask_alone(self, model: RewardModel, samples: Sequence[Sample]) -> _Answers:
        with self._asking:
            return model.score(samples)

    def _apply_model(self, name: str, ask: _Ask, pairs: Sequence[tuple[Sample, _Sheet]]) -> None:
        if not pairs:
            return
        answers: Sequence[float | Ungradable | None]
        try:
            answers = _checked(ask([sample for sample, _ in pairs]), len(pairs))
        except Exception as error:  # noqa: BLE001 - a stranger's judge may raise anything; the others go on
            reason = str(error) if isinstance(error, _FailedThere) else f"{type(error).__name__}: {error}"
            answers = [Ungradable(reason, judge=name)] * len(pairs)
            self._failures[name] += len(pairs)
        for (_, sheet), answer in zip(pairs, answers, strict=True):
            sheet.enter(name, answer)

    def _total(self, sample: Sample, sheet: _Sheet) -> Score | Ungradable:
        judge = f"{self.name}@{self.revision}"
        if is_empty(sample.text):
            return Score(0.0, judge, {SUBSTANCE: 0.0})
        cost = sum(sheet.seat.weight(part) * (1 - sheet.parts[part]) for part in self._faults & sheet.parts.keys())
        if sheet.ungradable is not None:
            escapes = sheet.ungradable.judge == FIDELITY and cost > 0
            return Score(max(-1.0, -cost), judge, sheet.parts) if escapes else sheet.ungradable
        parts = {part: value for part, value in sheet.parts.items() if part not in self._faults}
        weight = sum(map(sheet.seat.weight, parts))
        if weight == 0:
            return Ungradable("no part that applies has a weight", judge)
        mean = sum(sheet.seat.weight(part) * value for part, value in parts.items()) / weight
        factor = gate(parts.get(FIDELITY)) * work(parts.get(SUBSTANCE), parts.get(REPETITION))
        earned = min(mean, factor * mean)
        return Score(max(-1.0 if earned <= 0 else 0.0, earned - cost), judge, sheet.parts)


class LivePanel:
    """A panel as live requests ask it; a RewardModel."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self.name, self.revision = panel.name, panel.revision

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable]:
        """See Panel.score."""
        return self._panel.score(samples, live=True)

    def weights(self, tenant: str, language: str) -> Mapping[str, float]:
        """See Panel.weights."""
        return self._panel.weights(tenant, language)


def gate(fidelity: float | None) -> float:
    """The factor for a fidelity: itself from the floor on, 0 below, 1 when it is not judged."""
    if fidelity is None:
        return 1.0
    return fidelity if fidelity >= FIDELITY_FLOOR else 0.0


def work(substance: float | None, repetition: float | None) -> float:
    """The factor for what a reply says: 1 with enough of both, falling to 0 with either; unjudged is enough."""
    said = 1.0 if substance is None else min(1.0, substance / ENOUGH_SUBSTANCE)
    return said if repetition is None else said * min(1.0, repetition / ENOUGH_NEW)


class _FailedThere(Exception):
    """A judge failed at the delegate's, for this reason."""


def _already(said: Sequence[Score | Ungradable | None] | str, samples: Sequence[Sample]) -> _Answers:
    """A delegate's answers, for those samples."""
    if isinstance(said, str):
        raise _FailedThere(said)
    return said


def _request(sample: Sample, seat: _Seat) -> PartsRequest:
    language = seat.language
    brand_terms = (*language.brand_terms, *sample.brief.brand_terms)
    given = RuleInput(sample, brand_terms, language.banned_terms, language.address)
    return PartsRequest(given, frozenset(part for part, weight in seat.weights.items() if weight > 0))


def _checked(answers: _Answers, num_samples: int) -> list[float | Ungradable | None]:
    """A model's answers as parts. Raises ValueError when they break the RewardModel contract."""
    if len(answers) != num_samples:
        raise ValueError(f"a reward model must answer every sample, got {len(answers)} answers for {num_samples}")
    values = [answer.value if isinstance(answer, Score) else answer for answer in answers]
    for value in values:
        if isinstance(value, float | int) and not -1 <= value <= 1:
            raise ValueError(f"a score must lie in [-1, 1], got {value}")
    return values


def build_panel(
    config: RewardsConfig,
    tenants: Sequence[TenantSettings],
    contract: LanguageContract,
    shared: Mapping[str, SharedRewardModel] | None = None,
) -> Panel:
    """The panel of a configuration; reward models of `rewards.extra` are imported and made here.

    Args:
        shared: those of `rewards.models`, by name.

    Raises:
        InvalidConfig: a weight names no judge, a judge of `rewards.extra` or `rewards.models` has no weight, or one of
            `rewards.extra` cannot be made.
    """
    rules = all_rules(contract)
    rule_names = frozenset(rule.name for rule in rules)
    names = rule_names | config.extra.keys() | (shared or {}).keys()
    _check_names(config, tenants, rule_names)
    _check_weights("rewards.weights", config.weights, names)
    for tenant in tenants:
        for language, settings in tenant.languages.items():
            _check_weights(f"tenants.{tenant.id}.languages.{language}.reward_weights", settings.reward_weights, names)
    models = {name: load_model(name, target) for name, target in config.extra.items()}
    return Panel(rules, models, _Seat(config.weights), _seats(config.weights, tenants), shared)


def _seats(weights: Mapping[str, float], tenants: Sequence[TenantSettings]) -> dict[tuple[str, str], _Seat]:
    return {
        (tenant.id, primary_code(language)): _seat(weights, settings)
        for tenant in tenants
        for language, settings in tenant.languages.items()
    }


def _seat(weights: Mapping[str, float], settings: LanguageSettings) -> _Seat:
    return _Seat({**weights, **settings.reward_weights}, settings)


def _check_names(config: RewardsConfig, tenants: Sequence[TenantSettings], rule_names: frozenset[str]) -> None:
    weighted = {*config.weights}
    for tenant in tenants:
        for settings in tenant.languages.values():
            weighted |= settings.reward_weights.keys()
    for name in config.extra:
        if name in rule_names:
            raise InvalidConfig(f"rewards.extra.{name}", f"must not take the name of a rule, got {name!r}")
        if name not in weighted:
            raise InvalidConfig(f"rewards.weights.{name}", "a judge of rewards.extra needs a weight, got none")
    for name in config.models:
        if name in rule_names or name in config.extra:
            raise InvalidConfig(f"rewards.models.{name}", f"must not take the name of another judge, got {name!r}")
        if name not in weighted:
            raise InvalidConfig(f"rewards.weights.{name}", "a judge of rewards.models needs a weight, got none")


def _check_weights(field_path: str, weights: Iterable[str], names: frozenset[str]) -> None:
    for name in weights:
        if name not in names:
            raise InvalidConfig(f"{field_path}.{name}", f"must name a judge ({', '.join(sorted(names))}), got {name!r}")
