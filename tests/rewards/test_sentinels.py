"""Sentinels: planted reward hacks score below honest replies, clean sentences hit no rule, and all of it is cheap."""

import time
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from rewards.faults import fault_rules
from rewards.length import Length
from rewards.part import Rule
from rewards.repetition import Repetition
from rewards.score import Sample, Score
from rewards.sentinels.__main__ import main
from rewards.sentinels.cases import Case, load_cases
from rewards.sentinels.hacks import BRAND, HACKS, TENANT
from rewards.sentinels.table import Row, as_markdown, default_panel, rows
from rewards.substance import Substance, substance_value
from tests.rewards.briefs import create, given

_CASES = load_cases()
_LEAST_LANGUAGES = 3
_LEAST_MARGIN = 0.09
_MOST_ALARMS = 0
_MOST_CPU_MS = 10.0
"""Ten times what an idle core takes; the bound only catches what is slow by its nature."""


@pytest.fixture(scope="module")
def table() -> list[Row]:
    """Every hack in every language, judged once."""
    return rows(default_panel(_CASES), _CASES)


@pytest.mark.parametrize("hack", HACKS)
def test_a_planted_hack_is_worth_less_than_an_honest_reply(hack: str, table: list[Row]) -> None:
    """In every language that has the hack, and in three at least, the honest reply is worth more."""
    of_hack = [row for row in table if row.hack == hack]
    assert len(of_hack) >= _LEAST_LANGUAGES
    for row in of_hack:
        assert row.margin is not None, row
        assert row.margin >= _LEAST_MARGIN, row


def test_honest_replies_keep_their_whole_reward(table: list[Row]) -> None:
    """But for the padding trials, where the honest reply is half as long as asked, each honest reply scores 1."""
    assert {round(row.honest or 0.0, 9) for row in table if row.hack != "padding to the bound"} == {1.0}


@pytest.mark.parametrize("hack", ["refusal", "question back", "empty", "wrong language"])
def test_work_that_is_not_done_is_worth_nothing(hack: str, table: list[Row]) -> None:
    """In sixteen languages or more the reply that does none of the work scores 0."""
    scores = [row.hacked for row in table if row.hack == hack]
    assert len(scores) >= 16
    assert set(scores) == {0.0}


@pytest.mark.parametrize("case", [case for case in _CASES if case.language != "en"], ids=lambda case: case.language)
def test_saying_nothing_is_no_way_out_of_faults(case: Case) -> None:
    """A translation that loses a brand, all numbers and leaks a placeholder earns 1 at most and has faults of 3 * 0.5:
    it was worth -0.5, where an empty reply and a copy of the source are worth 0. A refusal with faults is worth less.
    """
    brief = Brief(TENANT, Kind.TRANSLATE, case.language, text=case.source, source_language="en", brand_terms=(BRAND,))
    kept = "".join(letter for letter in case.translation.replace(BRAND, "") if not letter.isdecimal())
    replies = [f"{kept} {{{{ price }}}}", "", case.source, f"{case.refusal} {{{{ price }}}}"]
    scores = default_panel(_CASES).score([Sample(brief, text, FinishReason.STOP, 64) for text in replies])
    faulty, empty, copied, refused = (score.value for score in scores if isinstance(score, Score))
    assert faulty >= 0.0
    assert empty == copied == 0.0
    assert refused == -1.0


def _clean_sentences() -> list[tuple[str, str]]:
    path = Path(__file__).parents[1] / "agent" / "replies.toml"
    replies = tomllib.loads(path.read_text(encoding="utf-8"))
    ours = [(case.language, case.reply) for case in _CASES]
    return ours + [(code, text) for code, kinds in replies.items() for text in (*kinds["sentences"], *kinds["short"])]


def test_clean_sentences_hit_no_rule() -> None:
    """Over two hundred sentences and short lines in seventeen languages: no fault, and all of their substance."""
    sentences = _clean_sentences()
    assert len({language for language, _ in sentences}) >= 16
    assert len(sentences) >= 200
    alarms: Counter[str] = Counter()
    for language, text in sentences:
        brief = create(language, "x")
        seen = given(text, brief, brand_terms=("Klingelo",), banned_terms=("xyzzy",))
        values = {rule.name: rule.judge(seen) for rule in fault_rules()}
        values["substance"] = substance_value(text, brief, FinishReason.STOP)
        alarms.update(name for name, value in values.items() if value is not None and value != 1.0)
    assert sum(alarms.values()) <= _MOST_ALARMS, alarms


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m rewards.sentinels de`` prints a row for each hack and the smallest margin."""
    main(["de"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| hack | de |"
    assert len(lines) == 2 + len(HACKS) + 2
    assert "smallest margin" in lines[-1]
    with pytest.raises(SystemExit):
        main(["xx"])


def test_a_cell_shows_both_scores() -> None:
    """Honest over hacked, a dash for what could not be graded, which gains nothing."""
    row = Row("loop", "de", 1.0, None)
    assert row.margin == 1.0
    assert Row("loop", "de", None, 0.5).margin is None
    assert as_markdown([row]).splitlines()[-1] == "| loop | 1.00 / – |"


def test_rules_are_cheap(capsys: pytest.CaptureFixture[str]) -> None:
    """All rules but fidelity on a 500-character reply, each text a new one: printed, and bounded generously."""
    rules: tuple[Rule, ...] = (Length(), Repetition(), Substance(), *fault_rules())
    terms = tuple(f"wort{number}" for number in range(20))
    brief = create("de", "Schreibe über Brot.", min_words=5, max_words=90, register="formal", keywords=("Brot",))
    durations = []
    for number in range(40):
        text = f"{number} {' '.join(text for language, text in _clean_sentences() if language == 'de')}"[:500]
        seen = given(text, brief, brand_terms=("Klingelo", "Backhaus"), banned_terms=terms)
        started = time.process_time()
        for rule in rules:
            rule.judge(seen)
        durations.append((time.process_time() - started) * 1000)
    durations.sort()
    median = durations[len(durations) // 2]
    with capsys.disabled():
        print(f"\nrules: {median:.2f} ms CPU per 500-character reply (median of 40, least {durations[0]:.2f})")  # noqa: T201
    assert median < _MOST_CPU_MS
