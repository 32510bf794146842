"""How a reward model reads a brief."""

from agent.brief import Brief, Kind
from agent.dialogue import Role, Turn
from rewards.preference import conversation


def test_a_brief_is_one_turn_of_its_kind_language_text_and_instructions() -> None:
    """A text stands before what is to be done with it; what is empty is left out."""
    brief = Brief("acme", Kind.TRANSLATE, "pl", instructions=" Keep it short. ", text="The bell.")
    assert conversation(brief) == [Turn(Role.USER, "[translate, pl]\n\nThe bell.\n\nKeep it short.")]
    assert conversation(Brief("acme", Kind.CREATE, "de", instructions="Eine Zeile.")) == [
        Turn(Role.USER, "[create, de]\n\nEine Zeile.")
    ]
