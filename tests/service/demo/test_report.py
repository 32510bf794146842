"""The report out of canned results."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from agent.feedback import Feedback, Opinion, Rating, TextEdit
from rewards.score import Score, Ungradable
from service.demo.briefs import DemoBrief
from service.demo.report import render_report
from service.demo.results import DemoResults, Exchange, Failure, Flip, GreedyCheck, RewardPair, SwapRecord
from service.demo.screen import change, figure, signed
from service.feedback.inspection import Inspection
from service.http.fake_tuning import step_report
from service.http.gate_schema import GateReportView
from service.http.inspection_schema import RequestView
from service.http.tuning_schema import RunView
from tests.service.feedback.samples import episode
from tests.service.gate_reports import gate_report
from trainer.gate_records import GateVerdict
from trainer.records import Evaluation, RunRequest, RunState, RunStatus

GERMAN, ENGLISH = DemoBrief("de", "ein Satz über <Äpfel>"), DemoBrief("en", "a sentence")
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use"}


def exchange(version: int, sent_s: float, latency_s: float, text: str, brief: DemoBrief = GERMAN) -> Exchange:
    return Exchange(brief, sent_s, latency_s, text, "pass", 1.0, version, "req_1")


SWAP = SwapRecord(
    exchanges=(
        exchange(0, 10.0, 1.0, "before"),
        exchange(0, 10.5, 2.0, "across"),
        exchange(4, 12.0, 1.5, "first <b>tuned</b>"),
        exchange(4, 13.5, 1.5, "second tuned"),
    ),
    failures=(),
    flips=(Flip(11.5, 4, "published"), Flip(14.0, 0, "activated")),
)


def run_view() -> RunView:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    steps = (step_report(1, reward=0.5), step_report(2, reward=float("nan")))
    evaluation = Evaluation(
        4, 0, 0.75, 0.5, {"de": (0.8, 0.6), "en": (0.7, 0.4)}, {"de": (1.0, 0.9)}, {}
    )  # the English replies are too short for the gate's detector
    status = RunStatus("run_1", RunState.SUCCEEDED, RunRequest(), now, now, 2, steps, (4,), evaluation, None)
    return RunView.of(status)


def request_view(text: str, score: Score | Ungradable, *said: Opinion) -> RequestView:
    given = [Feedback("acme", "req_1", "de", datetime(2026, 1, 1, tzinfo=UTC), "key_1", opinion) for opinion in said]
    weights = {"fidelity": 1.0, "length": 2.0, "prose": 0.5}
    return RequestView.of(Inspection(episode("req_1", text, prompt="<Äpfel>"), score, weights, given))


def results() -> DemoResults:
    run = run_view()
    assert run.evaluation is not None
    return DemoResults(
        duration_s=200.4,
        replies=(exchange(0, 1.0, 1.0, "untuned & short"), exchange(0, 1.0, 1.0, "an English one", ENGLISH)),
        run=run,
        evaluation=run.evaluation,
        swap=SWAP,
        greedy=GreedyCheck(
            exchange(0, 5, 1, "greedy zero"), exchange(4, 20, 1, "greedy four"), exchange(0, 25, 1, "greedy zero")
        ),
        said=request_view("far too <long>", Score(0.125, "panel@2"), TextEdit("shorter & better"), Rating(2)),
        rewards=(
            RewardPair(
                request_view("judged before", Score(0.375, "panel@2", {"fidelity": 1.0, "length": 0.0625})),
                request_view("judged after", Score(0.875, "panel@2", {"fidelity": 1.0, "length": 0.8125})),
            ),
            RewardPair(
                request_view("???", Ungradable("too little text", "fidelity")),
                request_view("judged at last", Score(0.625, "panel@2", {"fidelity": 0.625})),
            ),
        ),
    )


class Balance(HTMLParser):
    """Fails on a closing tag that does not match; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.num: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.num[tag] = self.num.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.num[tag] = self.num.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(results())


def test_the_page_is_balanced_and_has_three_charts(page: str) -> None:
    """Every element is closed in order; the charts are inline."""
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    assert balance.num["svg"] == 3
    assert balance.num["html"] == balance.num["body"] == balance.num["title"] == 1


def test_the_page_needs_nothing_else(page: str) -> None:
    """No script, no style sheet, image or font from anywhere; the only addresses are the names of XML's namespaces."""
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    assert "url(http" not in page
    hosts = set(re.findall(r'(?:src|href)="(https?://[^"]+)"', page))
    assert hosts == set()


def test_what_a_model_wrote_is_escaped(page: str) -> None:
    """Markup in replies and briefs is shown, not obeyed."""
    assert "first &lt;b&gt;tuned&lt;/b&gt;" in page
    assert "<b>tuned</b>" not in page
    assert "&lt;Äpfel&gt;" in page
    assert "untuned &amp; short" in page


def test_the_figures_are_on_the_page(page: str) -> None:
    """Held-out reward over all and by language, fidelity, counts, the greedy replies, and what could not be judged."""
    for shown in ("0.500 → 0.750", "0.600 → 0.800", "0.400 → 0.700", "0.900 → 1.000", "0: 2, 4: 2", "11.5 s"):
        assert shown in page
    assert page.count("greedy zero") == 2
    assert page.count("greedy four") == 1
    assert "too little text to tell" in page
    assert "policy 0" in page
    assert "4 published" in page


def test_rewards_stand_on_the_page_part_by_part(page: str) -> None:
    """Reward, weight and values of both policies; of a reply that could not be graded the reason, and no number."""
    for shown in (
        "judged before",
        "judged after",
        "0.375",
        "0.875",
        "0.062",
        "0.812",
        "too little text",
        "judged at last",
    ):
        assert shown in page
    assert re.search(r"<td>length</td><td class=\"number\">2</td><td class=\"number\">0.062</td>", page)
    assert "<td>prose</td>" not in page  # neither reply has a value of it


def test_feedback_stands_beside_the_reply_that_it_is_about(page: str) -> None:
    """Escaped like everything else that people wrote."""
    for shown in ("far too &lt;long&gt;", "0.125", "shorter &amp; better", "2 of 5 stars"):
        assert shown in page


def test_the_gates_verdict_is_on_the_page_with_what_it_takes(page: str) -> None:
    """A language whose interval reaches below the margin is undetermined, with the prompts that would do; an
    evaluation without a report has no such section."""
    assert "The gate's verdict" not in page
    report, plain = gate_report(("de", "reward", 0.0625)), results()
    opened = replace(report.comparisons[0], verdict=GateVerdict.UNDETERMINED, prompts_needed=40)
    view = GateReportView.model_validate(replace(report, comparisons=(opened,)))
    shown = render_report(replace(plain, evaluation=plain.evaluation.model_copy(update={"report": view})))
    assert "The gate's verdict: undetermined" in shown
    assert "-0.062 to +0.188" in shown  # 0.0625 less and more 0.125
    assert "a rise is shown" in " ".join(shown.split())
    assert '<td class="number">40</td>' in shown


def test_the_tuned_reply_to_a_brief_is_its_first() -> None:
    """A brief that the tuned policy did not get has none."""
    assert {brief: reply.text for brief, reply in results().tuned_replies.items()} == {GERMAN: "first <b>tuned</b>"}


def test_requests_in_flight_at_a_change_began_before_and_ended_after() -> None:
    """At 11.5 s only the one of 10.5 to 12.5; at 14.0 s only that of 13.5 to 15.0."""
    assert [SWAP.in_flight_at(flip) for flip in SWAP.flips] == [1, 1]
    assert SWAP.in_flight_at(Flip(20.0, 4, "activated")) == 0


def test_replies_are_counted_by_policy() -> None:
    """In order of version; failures are no replies."""
    record = SwapRecord(
        (exchange(4, 1, 1, ""), exchange(0, 1, 1, ""), exchange(4, 1, 1, "")), (Failure(GERMAN, 1, "x"),), ()
    )
    assert list(record.replies_by_version.items()) == [(0, 1), (4, 2)]


def test_a_figure_that_is_no_number_is_said_to_be_none() -> None:
    """Never 0.000."""
    assert (figure(None), figure(0.12345), change(0.5, None)) == ("n/a", "0.123", "0.500 → n/a")
    assert (signed(None), signed(0.12345), signed(-0.5)) == ("n/a", "+0.123", "-0.500")
