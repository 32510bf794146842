"""Languages that a detector mixes up: dialects that count as one, neighbours, and labels that short text is taken for.

Facts about labels of fastText's lid.176, which other detectors share for the most part. Knows no text.
"""

from collections.abc import Mapping

VARIANTS: Mapping[str, frozenset[str]] = {
    code: frozenset(labels.split())
    for code, labels in {
        "ar": "ar arz",
        "az": "az azb",
        "bs": "bs hr sr sh",
        "de": "de als bar",
        "en": "en sco",
        "fa": "fa mzn",
        "hr": "hr bs sr sh",
        "id": "id ms",
        "it": "it lmo vec nap pms scn",
        "ku": "ku ckb",
        "ms": "ms id",
        "nl": "nl vls li",
        "no": "no nn",
        "pa": "pa pnb",
        "sh": "sh hr bs sr",
        "sr": "sr hr bs sh",
        "uk": "uk rue",
        "zh": "zh wuu yue",
    }.items()
}
"""Detector labels that count as the language: dialects and standards that short text does not tell apart."""

CONFUSABLE: tuple[frozenset[str], ...] = tuple(
    frozenset(codes.split())
    for codes in (
        "no nn da sv",
        "cs sk",
        "es gl pt ca ast an",
        "hi mr ne bh mai sa",
        "ru uk be bg mk sr",
        "hr bs sr sh sl mk",
        "fa ps ur",
        "id ms jv su min",
        "nl af fy li nds",
        "de lb nds",
        "tr az tk",
        "az azb tr",
    )
)
"""Neighbours: a detector has to be nearly certain before one of them is held against another."""


UNLIKELY = frozenset("an br co eo gn gv ia ie io kw la li oc qu rm sc vo wa".split())
"""Labels of the table that short text of larger languages is taken for; with them, every label outside of the table.

fastText finds "Usa estas palabras clave" to be Esperanto with probability 0.99.
"""
UNLIKELY_LETTERS = 50
"""An unlikely language is believed from so many letters on."""
