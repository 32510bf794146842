"""What layout a brief's words ask for: a list, a heading. By language; all languages are searched."""

import re
from dataclasses import dataclass

_LIST = re.compile(
    r"""
    bullet[ -]?(?:points?|lists?|ed) | numbered[ ]list | as[ ]a[ ]list\b | aufzählung | stichpunkt | als[ ]liste\b
    | nummerierte[ ]liste | liste[ ](?:à[ ]puces|numérotée) | (?:en|de)[ ]puces\b
    | lista[ ](?:con[ ]viñetas|numerada|de[ ]puntos) | viñetas | elenco[ ](?:puntato|numerato)
    | lista[ ]com[ ]marcadores | marcadores\b | tópicos\b | opsomming | genummerde[ ]lijst
    | lista[ ](?:wypunktowana|numerowana) | wypunktowan | w[ ]punktach | odrážk | odrážek | číslovaný[ ]seznam
    | punktlista | numrerad[ ]lista | maddeler[ ]halinde | madde[ ]işaretli | маркирован | нумерованн
    | нумерован | списком\b | маркован | قائمة[ ](?:نقطية|مرقمة) | नुक्तों | बिंदुओं | 箇条書き | 番号付きリスト
    | 项目符号 | 编号列表 | 要点列表 | 列表形式 | 글머리[ ]?기호 | 번호[ ]목록 | 목록으로
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HEADING = re.compile(
    r"""
    \bheadings?\b | \bheadlines?[ ]and\b | \bwith[ ]a[ ](?:title|headline)\b | mit[ ]überschrift | überschriften
    | mit[ ]titel | avec[ ](?:un[ ])?titres? | con[ ](?:un[ ])?título | con[ ](?:un[ ])?titolo
    | com[ ](?:um[ ])?título | met[ ](?:een[ ])?(?:kop|titel)\b | z[ ](?:nagłówkiem|tytułem) | s[ ]nadpisem
    | med[ ](?:en[ ])?rubrik | başlıklı | с[ ]заголовк | із?[ ]заголовк | مع[ ]عنوان | शीर्षक[ ]के[ ]साथ
    | 見出し付き | タイトル付き | 带标题 | 加标题 | 제목을[ ]붙
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ITEM = re.compile(
    r"^[ \t]*(?:[-*+•·–—▪◦‣●○■□✓✔]|\(?\d{1,2}[.):]|[a-zA-Z][.)])[ \t]+\S|^[ \t]*[・●■]\S|^\d{1,2}[、．]\S", re.MULTILINE
)
_MARKDOWN_HEADING = re.compile(r"^(?:\#{1,6}[ ]\S|\*\*[^*\n]+\*\*[ \t]*$)", re.MULTILINE)
_TITLE_CHARACTERS = 90
_ENDS = tuple(".。।,،;:")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a brief asks for."""

    is_list: bool
    has_heading: bool


def asked_layout(instructions: str) -> Layout:
    """The layout that instructions name."""
    return Layout(_LIST.search(instructions) is not None, _HEADING.search(instructions) is not None)


def num_items(text: str) -> int:
    """List items of ``text``."""
    return sum(1 for _ in _ITEM.finditer(text))


def has_heading(text: str) -> bool:
    """True for a Markdown heading, and for a short first line without a full stop above more text."""
    first, _, rest = text.strip().partition("\n")
    is_title = bool(rest.strip()) and len(first) <= _TITLE_CHARACTERS and not first.rstrip().endswith(_ENDS)
    return _MARKDOWN_HEADING.search(text) is not None or (is_title and _ITEM.match(first) is None)
