"""The language bench: its texts, what it counts, and that the contract keeps what it promises."""

from pathlib import Path

import pytest
from rich.console import Console

from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from service.bench.failure import BenchFailed
from service.bench.language.contract import (
    LanguageOptions,
    LanguageRow,
    bench_language,
    check_promise,
    means_of,
    measure,
)
from service.bench.language.samples import (
    NUM_SENTENCES,
    Domain,
    Split,
    clean_replies,
    domains,
    mixed_replies,
    text_of_length,
)

_DOMAIN = Domain(
    "test",
    {"de": [f"Dieser satz hat die laufende Nummer {word}." for word in ("eins", "zwei", "drei", "vier", "sechs")],
     "en": ["This sentence is an English one indeed."]},
    {"de": ["satz", "sentence sentence sentence"]},
)  # fmt: skip


def test_the_declaration_is_split_by_articles() -> None:
    """No sentence that thresholds may be chosen by is reported, and each side has enough in each of 26 languages."""
    (tune,), (report, copy) = domains(Split.TUNE), domains(Split.REPORT)
    assert len(tune.sentences) == len(report.sentences) == 26
    for language, sentences in report.sentences.items():
        assert not set(sentences) & set(tune.sentences[language])
        assert min(len(sentences), len(tune.sentences[language])) >= 2 * NUM_SENTENCES
    assert len(copy.sentences) == len(copy.short) == 18
    assert all(len(sentences) == 10 for sentences in copy.sentences.values())


def test_a_mixed_reply_has_one_wrong_sentence_at_each_place_in_turn() -> None:
    """The span is where it stands; the other four are the language's own."""
    replies = mixed_replies(_DOMAIN, "de", 10)
    wrong = _DOMAIN.sentences["en"][0]
    assert all(reply.text[reply.start : reply.end] == wrong for reply in replies)
    assert all(reply.text.count("Dieser satz") == 4 for reply in replies)
    assert [reply.start == 0 for reply in replies] == [True, False, False, False, False] * 2
    assert mixed_replies(_DOMAIN, "de", 10) == replies


def test_clean_replies_and_long_texts_are_of_the_language_alone() -> None:
    """Five sentences a reply; a text of a length has that length."""
    assert all(reply.count("Dieser satz") == NUM_SENTENCES for reply in clean_replies(_DOMAIN, "de", 3))
    assert len(text_of_length(_DOMAIN, "de", 500)) == 500


def test_what_is_counted(tmp_path: Path) -> None:
    """A detector that knows both languages catches all; one that takes "Nummer" for English cries wolf always, and
    never names the wrong sentence alone. Of two short lines one is English."""
    options = LanguageOptions(tmp_path, 10, Split.TUNE, num_timings=5)
    good = measure(LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})), _DOMAIN, "de", options)
    assert (good.caught, good.named, good.false_alarms, good.undetermined) == (1.0, 1.0, 0.0, 0.0)
    assert good.short_alarms == 0.5
    assert good.cpu_us > 0
    wolf = measure(
        LanguageContract(FixedDetector({"nummer": "en", "sentence": "en", "x": "de"})), _DOMAIN, "de", options
    )
    assert (wolf.caught, wolf.named, wolf.false_alarms) == (1.0, 0.0, 1.0)


def test_the_contract_keeps_its_promise(tmp_path: Path) -> None:
    """At least 98 % of wrong sentences caught and at most 3 % false alarms over all languages; the table is written."""
    bench_language(LanguageOptions(tmp_path, 10, Split.REPORT, num_timings=1), Console(quiet=True))
    rows = (tmp_path / "language.md").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("| domain | language | caught |")
    # Two lines of head, 26 and 18 languages, a mean of each domain.
    assert len(rows) == 2 + 26 + 18 + 2


def _row(caught: float, false_alarms: float) -> LanguageRow:
    return LanguageRow("copy", "de", "en", caught, caught, false_alarms, 0.0, None, 500.0)


def test_a_broken_promise_fails_the_bench() -> None:
    """What counts is the mean of a domain: one language may be worse when another one is better."""
    check_promise(means_of([_row(0.97, 0.04), _row(1.0, 0.0)]))
    # (0.95 + 1) / 2 caught; (0.04 + 0.04) / 2 false alarms.
    with pytest.raises(BenchFailed, match=r"copy: caught 97\.50%, false alarms 0\.00%"):
        check_promise(means_of([_row(0.95, 0.0), _row(1.0, 0.0)]))
    with pytest.raises(BenchFailed, match=r"false alarms 4\.00%"):
        check_promise(means_of([_row(1.0, 0.04), _row(1.0, 0.04)]))
