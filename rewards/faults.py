"""The rules whose part is taken off a reward: what a reply must not do, whatever else it does well.

A reply without a fault keeps its reward to the last digit, however many of these rules there are. That is why they are
no parts of the mean: there each new rule that nearly all replies pass would make the other parts count for less.
"""

from rewards.banned import Banned
from rewards.brand import Brand
from rewards.format import Format
from rewards.leakage import Leakage
from rewards.numerals import Numerals
from rewards.part import Rule
from rewards.prose import Prose
from rewards.register import RegisterRule


def fault_rules() -> tuple[Rule, ...]:
    """One of each."""
    return (Format(), Brand(), Banned(), RegisterRule(), Numerals(), Leakage(), Prose())
