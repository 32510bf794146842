"""Where the segments of an arena lie. Graphs that use one are compared with kernels in test_graphs."""

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from trainer.arena import CHUNK_BYTES, Layout

MIB = 2**20


def _device(*addresses: int) -> tuple[Layout, list[int]]:
    """A layout on a device with these pieces to give, and the sizes that were asked for."""
    asked: list[int] = []
    left: Iterator[int] = iter(addresses)

    def obtain(size: int) -> int | None:
        asked.append(size)
        return next(left, None)

    return Layout(obtain), asked


def test_a_turn_begins_where_the_last_one_began() -> None:
    """The same segments come to lie at the same addresses, and nothing more is asked of the device."""
    layout, asked = _device(1 << 40)
    first = [layout.take(size * MIB) for size in (20, 2, 6)]
    layout.rewind()
    assert [layout.take(size * MIB) for size in (20, 2, 6)] == first
    assert first == [(1 << 40), (1 << 40) + 20 * MIB, (1 << 40) + 22 * MIB]
    assert asked == [CHUNK_BYTES]


def test_segments_begin_at_multiples_of_two_mebibytes() -> None:
    """A segment of one byte takes 2 MiB."""
    layout, _ = _device(1 << 40)
    layout.take(1)
    assert layout.take(1) == (1 << 40) + 2 * MIB


def test_a_segment_that_fits_nowhere_gets_a_piece_of_its_own() -> None:
    """256 MiB hold 200; 300 more need a piece of exactly 300, and 56 still fit behind the 200."""
    layout, asked = _device(1 << 40, 1 << 41)
    layout.take(200 * MIB)
    assert layout.take(300 * MIB) == 1 << 41
    assert layout.take(56 * MIB) == (1 << 40) + 200 * MIB
    assert asked == [CHUNK_BYTES, 300 * MIB]
    assert layout.size_bytes == 556 * MIB


def test_a_full_device_gives_nothing() -> None:
    """The segment has no address, and what is there stays usable."""
    layout, _ = _device(1 << 40)
    layout.take(250 * MIB)
    assert layout.take(10 * MIB) is None
    assert layout.take(6 * MIB) == (1 << 40) + 250 * MIB


def test_what_is_kept_is_never_given_again() -> None:
    """Of 2, 4 and 8 MiB the middle one stays: the next turns lie before it and behind it."""
    layout, _ = _device(1 << 40)
    layout.take(2 * MIB)
    kept = layout.take(4 * MIB)
    assert kept is not None
    layout.take(8 * MIB)
    layout.rewind(keep=[kept])
    for _ in range(2):
        assert [layout.take(2 * MIB), layout.take(2 * MIB)] == [1 << 40, (1 << 40) + 6 * MIB]
        layout.rewind()


@given(st.lists(st.lists(st.integers(1, 300 * MIB), max_size=6), min_size=1, max_size=4))
def test_segments_of_a_turn_never_overlap(turns: list[list[int]]) -> None:
    """Whatever the sizes, and whatever earlier turns kept: here each keeps its first segment."""
    layout, _ = _device(*range(1 << 40, 1 << 42, 1 << 36))
    kept: list[tuple[int, int]] = []
    for sizes in turns:
        taken = [(layout.take(size), size) for size in sizes]
        spans = sorted([(address, address + size) for address, size in taken if address is not None] + kept)
        assert len(spans) == len(sizes) + len(kept)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        kept += [(address, address + size) for address, size in taken[:1] if address is not None]
        layout.rewind(keep=[address for address, _ in taken[:1] if address is not None])
