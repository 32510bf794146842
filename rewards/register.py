"""Register: readers are addressed the way that was asked for, formally or informally."""

from agent.brief import Kind
from agent.language import primary_code
from rewards.addresses import count_addresses, knows_address
from rewards.part import RuleInput

_NOT_TOLD = frozenset((Kind.CORRECT, Kind.CHAT))
"""A correction keeps the address that it finds, and a chat has no template that could ask for one."""


class RegisterRule:
    """Whether a reply addresses its readers as its brief or tenant wants."""

    name = "register"

    def judge(self, given: RuleInput) -> float | None:
        """See register_value. Absent where no address is asked for, and for corrections and chats."""
        brief = given.sample.brief
        wanted = brief.register or given.address
        if wanted is None or brief.kind in _NOT_TOLD:
            return None
        return register_value(given.sample.text, brief.language, is_formal=wanted == "formal")


def register_value(text: str, language: str, *, is_formal: bool) -> float | None:
    """The share of forms of address that are of the wanted kind.

    None in a language without a table (rewards.addresses) and for a text that addresses nobody.
    """
    code = primary_code(language)
    if not knows_address(code):
        return None
    found = count_addresses(text, code)
    total = found.num_formal + found.num_informal
    if total == 0:
        return None
    return (found.num_formal if is_formal else found.num_informal) / total
