"""Word of the learner's answers, over a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.answer_line import AnswerLine
from trainer.answer_line import AnswerCaller

NEVER_S = 30.0
"""A test that waits for so long has waited in vain."""


@pytest.fixture
async def line() -> AsyncIterator[AnswerLine]:
    made = AnswerLine()
    yield made
    made.close()


@pytest.fixture
def caller(line: AnswerLine) -> Iterator[AnswerCaller]:
    with closing(AnswerCaller(line.address)) as made:
        yield made


async def test_who_waits_hears_of_his_own_answer(line: AnswerLine, caller: AnswerCaller) -> None:
    """As soon as it is told, from another thread; word of another ticket ends no wait."""
    began_s = time.monotonic()
    waiting = asyncio.create_task(line.heard(2, NEVER_S))
    await asyncio.to_thread(caller.tell, 1)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await asyncio.to_thread(caller.tell, 2)
    await waiting
    assert time.monotonic() - began_s < NEVER_S / 2


async def test_word_that_came_before_the_wait_counts_once(line: AnswerLine, caller: AnswerCaller) -> None:
    """The learner may be done before the engine has said which ticket it was."""
    caller.tell(2**40)
    await asyncio.wait_for(line.heard(2**40, NEVER_S), NEVER_S / 2)
    began_s = time.monotonic()
    await line.heard(2**40, 0.05)
    assert time.monotonic() - began_s >= 0.05


async def test_without_word_the_wait_ends(line: AnswerLine) -> None:
    """And leaves nothing behind, as does one that is given up."""
    await line.heard(3, 0.01)
    waiting = asyncio.create_task(line.heard(4, NEVER_S))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert line._waiting == line._heard == {}


async def test_words_that_nobody_waits_for_are_forgotten(
    line: AnswerLine, caller: AnswerCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first."""
    monkeypatch.setattr("service.answer_line._MOST_HEARD", 3)
    for ticket in range(5):
        caller.tell(ticket)
    await asyncio.sleep(0.05)
    assert list(line._heard) == [2, 3, 4]


async def test_nobody_need_listen(line: AnswerLine, caller: AnswerCaller) -> None:
    """The front process may be slow, or gone: telling neither raises nor waits. A line may be closed twice."""
    for ticket in range(5000):  # more than a socket holds
        caller.tell(ticket)
    line.close()
    line.close()
    caller.tell(1)
    assert not Path(line.address).parent.exists()


async def test_a_long_temporary_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has a hundred bytes at most, and an engine must start wherever temporary files are kept."""
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    line = AnswerLine()
    with closing(AnswerCaller(line.address)) as caller:
        caller.tell(1)
        await asyncio.wait_for(line.heard(1, NEVER_S), NEVER_S / 2)
    line.close()
