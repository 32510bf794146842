"""How much of a reply may be in other languages than the wanted one, before the language contract is broken."""

from dataclasses import dataclass

from agent.language import primary_code
from agent.relatives import VARIANTS


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant lets stand. Brand terms need none: the contract never looks at them."""

    share: float = 0.0
    """Share of a reply's determined letters that may be in other languages, in [0, 1]."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages that may stand there; empty for any."""

    def covers(self, language: str | None) -> bool:
        """Whether a sentence in ``language`` may stand in a reply, as long as there is little of it."""
        if self.share == 0 or language is None:
            return False
        return not self.languages or any(language in VARIANTS.get(code, {code}) for code in self._codes)

    @property
    def _codes(self) -> tuple[str, ...]:
        return tuple(map(primary_code, self.languages))


NOTHING = Allowance()
"""Every sentence has to be in the wanted language."""
