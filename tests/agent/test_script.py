"""Letters counted by script."""

from agent.script import Script, count_letters


def test_letters_are_counted_by_script() -> None:
    """An ideograph or syllable block counts three, other letters one; digits, space and punctuation count nothing."""
    # Latin: A p p = 3; Han: 東京 = 2 x 3; Kana: は = 3; Cyrillic: да = 2
    expected = {Script.LATIN: 3, Script.HAN: 6, Script.KANA: 3, Script.CYRILLIC: 2}
    assert count_letters("App 12 東京は, да!") == expected


def test_vowel_signs_belong_to_their_script() -> None:
    """Devanagari vowel signs and viramas count as letters, the danda does not."""
    # ह ि न ् द ी = 6
    assert count_letters("हिन्दी।") == {Script.DEVANAGARI: 6}
