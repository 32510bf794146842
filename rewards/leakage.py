"""Leakage: code, markup, placeholders, chat markers and addresses that were not asked for, in a text for readers.

What a brief holds itself is no leak, nor is any address when it asks for one. Markdown's headings, lists and emphasis
are content. In a chat code and addresses may be the answer; placeholders and chat markers never are.
"""

import re
from collections.abc import Iterator
from itertools import chain

from agent.brief import Brief, Kind
from agent.sentences import DOMAINS
from agent.structure import prose_of
from rewards.part import RuleInput

_MARKERS = re.compile(
    r"""
    <\|[^|<>\n]{1,40}\|> | <[|/]?(?:s|bos|eos|pad|unk|think|tool_call|start_of_turn|end_of_turn|im_start|im_end)>
    | \[/?(?:INST|SYS|TOOL_CALLS|AVAILABLE_TOOLS)\] | <</?SYS>>
    | ^[ \t]*(?:\#{2,}[ \t]*)?(?:User|Assistant|Human)[ \t]*:
    | \#{2,}[ ](?:Instruction|Response|Input|Output)\b
    """,
    re.VERBOSE | re.MULTILINE,
)
_PLACEHOLDERS = re.compile(
    r"""
    \{\{[^{}\n]{0,60}\}\} | \{%[^{}\n]{0,60}%\} | \$\{[^{}\n]{1,60}\} | %\([a-zA-Z_]+\)s | \{[a-zA-Z_][a-zA-Z_0-9.]*\}
    | <(?:your|insert|name|company|product|brand|date|price|link)[ _a-zA-Z]{0,40}> | \[\s?[^\W\d][^\[\]\n]{1,40}\](?!\()
    | (?i:\blorem\ ipsum\b)
    """,
    re.VERBOSE,
)
_CODE = re.compile(
    r"""
    ``` | </?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>\n]{0,200})?/?> | &(?:nbsp|amp|lt|gt|quot|\#\d{2,5});
    | ^[ \t]*(?:def|class|import|from|const|let|var|function|public|return|print|SELECT|INSERT|\#include)\b.*[{};=].*$
    | ^\s*[\[{]\s*["\[{] | \\n | \\u[0-9a-fA-F]{4}
    """,
    re.VERBOSE | re.MULTILINE,
)
_ADDRESSES = re.compile(
    rf"""
    https?://[^\s<>"')）」]+ | (?<![\w@])www\.[^\s<>"')）」]+
    | (?<![\w.+-])[\w.+-]{{1,64}}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}})+
    | (?<![\w.@-])(?:[a-zA-Z0-9-]{{1,63}}\.){{1,8}}(?:{DOMAINS})\b
    """,
    re.VERBOSE,
)
_SUSPECT = re.compile(r"[<{\[`\\&$%@;=]|\w\.[a-zA-Z]|//|\n[ \t]*#|(?i:user|assistant|human|lorem|www)")
"""Whatever leaks has one of these."""
_ASKS_FOR_CODE = re.compile(
    r"(?i)html|markdown|\bcode\b|json|xml|css|python|javascript|\bsql\b|код|كود|कोड|コード|代码|코드|\{\{|```|<[a-z/]"
)
_ASKS_FOR_ADDRESS = re.compile(
    r"(?i)\burl|https?:|www\.|\blinks?\b|websei?te|website|e-?mail|@|ссылк|посилан|رابط|لينك|लिंक|リンク|链接|網址|网址|링크|\blien\b|enlace"
)


class Leakage:
    """Whether a reply keeps to text for readers."""

    name = "leakage"

    def judge(self, given: RuleInput) -> float:
        """See leakage_value."""
        return leakage_value(given.sample.text, given.sample.brief, (*given.brand_terms,))


def leakage_value(text: str, brief: Brief, brand_terms: tuple[str, ...] = ()) -> float:
    """0 when something leaks, else 1. Of a structured reply the strings alone are judged."""
    prose = text if brief.schema is None else prose_of(text)
    return 0.0 if next(leaks(prose, brief, brand_terms), None) is not None else 1.0


def leaks(text: str, brief: Brief, brand_terms: tuple[str, ...] = ()) -> Iterator[str]:
    """What of ``text`` is none of it, in the brief's words or out of them."""
    if _SUSPECT.search(text) is None:
        return
    given = _given(brief, brand_terms)
    patterns = [_MARKERS, _PLACEHOLDERS]
    if brief.kind is not Kind.CHAT:
        patterns += [] if _ASKS_FOR_CODE.search(given) else [_CODE]
        patterns += [] if _ASKS_FOR_ADDRESS.search(brief.instructions) else [_ADDRESSES]
    for match in chain.from_iterable(pattern.finditer(text) for pattern in patterns):
        if match.group().strip().casefold() not in given.casefold():
            yield match.group()


def asks_for_code(brief: Brief) -> bool:
    """True when the brief speaks of code or a markup language."""
    return _ASKS_FOR_CODE.search(_given(brief, ())) is not None


def _given(brief: Brief, brand_terms: tuple[str, ...]) -> str:
    examples = [text for example in brief.examples for text in (example.given, example.wanted)]
    return "\n".join((brief.instructions, brief.text, *brief.keywords, *brief.brand_terms, *brand_terms, *examples))
