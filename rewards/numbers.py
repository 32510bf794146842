"""Numbers in running text, whatever digits, separators and units a language writes them with.

``1,234.5``, ``1.234,5``, ``1 234,5`` and ``١٬٢٣٤٫٥`` are one number. ``1.234`` is two: a thousand in German, a little
more than one in English. So a number is a set of values that it can have, and two numbers agree when they share one.

Reads no number words; knows spellings of common currencies and units alone. A unit that it does not know is no unit.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from agent.script import WORD

_SMALL = 12
"""Integers up to here are often written as words, in a translation most of all."""
_HOURS = 12

_ZEROS = "\u0660\u06f0\u0966\u09e6\u0a66\u0ae6\u0b66\u0be6\u0c66\u0ce6\u0d66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810\uff10"
"""The digit 0 of every script in use; the others follow it."""
_PLAIN: Mapping[int, str | int] = {
    **{ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)},
    **str.maketrans("٫٬٪％．，", ".,%%.,"),
}

_NOT_PLAIN = re.compile("[" + "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in _ZEROS) + "٫٬٪％．，]")

_UNIT_TABLE = """
EUR € eur euro euros euró avro евро євро يورو यूरो ユーロ 欧元 유로
USD $ us$ usd dollar dollars dólar dólares dollaro dollari dolar dolary dolarów dolarů доллар доллара долларов долларов
USD долар долари доларів دولار डॉलर ドル 美元 달러
GBP £ gbp pound pounds pfund livres libras sterline funtów фунтов
JPY-CNY ¥ ￥ 円 元 jpy cny yen yuan йен юаней रेन 日元 人民币 엔 위안
KRW ₩ krw 원 won
INR ₹ inr rupees रुपये रुपए रुपया
TRY ₺ tl try lira
PLN zł pln zloty złoty złotych złote
CZK kč czk korun
SEK-NOK-DKK kr sek nok dkk kronor kroner
RUB ₽ rub руб рублей рубля рубль
UAH ₴ uah грн гривень гривні
CHF chf franken
BRL r$ brl reais
% % percent prozent procent procento procenta por-cento процент процента процентов відсотків प्रतिशत パーセント 퍼센트
kg kg кг kilo kilogram kilograms kilogramm 公斤 किलो كجم
g g г gramm gram grams grammes gramos grammi gramas gramů gramów граммов грамм ग्राम グラム 克 그램 جرام غرام غرامًا
mg mg мг
km km км kilometer kilometres kilometers kilomètres kilómetros chilometri 公里 كم किमी
m m м meter metres metri metros мetров 米 मीटर
cm cm см 厘米 सेमी سم
mm mm мм 毫米
l l л liter litre litres litros litri litrów litrů литров 升 लीटर リットル
ml ml мл 毫升
kWh kwh квтч
W w watt вт
GB gb гб
MB mb мб
°C °c ℃
"""
_UNITS: Mapping[str, str] = {
    spelling: canonical
    for canonical, *spellings in map(str.split, _UNIT_TABLE.split("\n")[1:-1])
    for spelling in spellings
}

_SCALE_TABLE = """
1e3 thousand thousands tausend tsd mille mil mila duizend tys tysięcy tisíc tusen bin тыс тысяч тысячи тис тисяч
1e3 हज़ार हजार 千 천 ألف
1e4 万 萬 만
1e5 लाख lakh
1e6 million millions millionen mio mln millón millones milione milioni milhão milhões milion miliony milionů milionów
1e6 miljoen miljoner milyon млн миллион миллиона миллионов мільйон мільйонів मिलियन مليون 百万
1e7 करोड़ crore
1e8 億 亿 억
1e9 billion milliarde milliarden milliard milliards miliardo miliardi miliard mld mrd
1e9 miljard milyar млрд миллиардов مليار
"""
_SCALES: Mapping[str, float] = {
    word: float(factor) for factor, *words in map(str.split, _SCALE_TABLE.split("\n")[1:-1]) for word in words
}

_LETTERS = rf"(?:(?![\d_])[{WORD}])+"
_SIGN = r"[€$£¥￥₩₹₺₽₴%℃]|°[Cc]"
_NUMBER = re.compile(
    rf"""
    (?<!\d)
    (?: (?P<date> \d{{4}}(?P<ymd>[-/.])\d{{1,2}}(?P=ymd)\d{{1,2}}(?!\d)
                | \d{{1,2}}(?P<dmy>[-/.])\d{{1,2}}(?P=dmy)(?:\d{{4}}|\d\d)(?!\d) )
      | (?P<short_date> \d{{1,2}}\.\d{{1,2}}\.(?=\s|$) )
      | (?P<time> \d{{1,2}}(?::|[ \u00a0]?h[ \u00a0]?)\d\d(?!\d) )
      | (?P<grouped> \d{{1,3}}(?:(?P<sep>[., '’\u00a0\u202f\u2009])\d{{3}})(?:(?P=sep)\d{{3}}){{0,6}}(?!\d)
          (?:[.,]\d{{1,3}}(?!\d))? )
      | (?P<indian> \d{{1,2}}(?:,\d\d){{1,6}},\d{{3}}(?!\d)(?:\.\d+)? )
      | (?P<plain> \d+(?:[.,]\d+)? )
    )
    (?P<after> [ \u00a0\u202f]? (?:{_LETTERS}|{_SIGN}) (?:[ \u00a0\u202f]?(?:{_LETTERS}|{_SIGN}))? )?
    """,
    re.VERBOSE,
)
_BEFORE = re.compile(r"(?:US\$|R\$|CHF|EUR|USD|GBP|[€$£¥￥₩₹₺₽₴%])(?=[ \u00a0\u202f]?$)")
_LONGEST_BEFORE = 5
_DIGIT = re.compile(r"\d")
_WORDS = re.compile(rf"{_LETTERS}|{_SIGN}")
_FIRST_UNSPACED = "\u3040"


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it may be meant."""

    values: frozenset[float]
    unit: str | None = None
    """Currency or unit of measure, by its own name; None when there is none, or none that is known."""
    is_small: bool = False
    """A bare integer that many languages write as a word."""

    def agrees(self, other: "Number") -> bool:
        """True when both can mean the same: a value in common, and no two units that differ."""
        return not self.values.isdisjoint(other.values) and (None in (self.unit, other.unit) or self.unit == other.unit)

    @property
    def is_amount(self) -> bool:
        """True for money and percentages, by which readers hold a text to its word."""
        return self.unit is not None and (self.unit == "%" or (self.unit.isupper() and len(self.unit) > 2))


@lru_cache(maxsize=256)
def read_numbers(text: str) -> tuple[Number, ...]:
    """Numbers of ``text`` in order; a date yields each of its parts."""
    if _DIGIT.search(text) is None:
        return ()
    plain = text.translate(_PLAIN) if _NOT_PLAIN.search(text) else text
    return tuple(number for match in _matches(plain) for number in _numbers(match))


def _matches(plain: str) -> Iterator[re.Match[str]]:
    """Where numbers stand: the pattern is tried at digits alone, which takes a quarter of the time of a search."""
    position = 0
    while digit := _DIGIT.search(plain, position):
        match = _NUMBER.match(plain, digit.start())
        position = digit.end() if match is None else match.end()
        if match is not None:
            yield match


def _numbers(match: re.Match[str]) -> Iterator[Number]:
    unit, scale = _unit(match)
    if match["date"] or (match["short_date"] and unit is None):
        for part in re.split(r"[-/.]", (match["date"] or match["short_date"]).rstrip(".")):
            yield _date_part(part)
    elif match["time"]:
        yield Number(_hours(match["time"]))
    else:
        values = _values(match)
        is_small = unit is None and scale == 1 and all(value <= _SMALL and value.is_integer() for value in values)
        yield Number(values | {value * scale for value in values}, unit, is_small)


def _unit(match: re.Match[str]) -> tuple[str | None, float]:
    """Unit and scale of a number, by what stands on both sides of it."""
    before = _BEFORE.search(match.string[max(0, match.start() - _LONGEST_BEFORE) : match.start()])
    unit, scale = None if before is None else _UNITS.get(before.group().lower()), 1.0
    for word in _WORDS.findall((match["after"] or "").lower()):
        head = word if word in _SCALES else word[0]
        is_scale = scale == 1.0 and head in _SCALES
        scale = _SCALES[head] if is_scale else scale
        if rest := word[len(head) :] if is_scale else word:
            return unit or _UNITS.get(rest) or _glued_unit(rest), scale
    return unit, scale


def _glued_unit(word: str) -> str | None:
    """The unit that begins a run of letters of a script without spaces: ``円です``."""
    if word[0] < _FIRST_UNSPACED:
        return None
    return next((_UNITS[word[:size]] for size in (3, 2, 1) if word[:size] in _UNITS), None)


def _date_part(digits: str) -> Number:
    value = float(digits)
    values = {value, 2000 + value} if len(digits) == 2 else {value}
    return Number(frozenset(values), is_small=value <= _SMALL)


def _hours(time: str) -> frozenset[float]:
    """14:30 is 14.3, as ``14.30 Uhr`` reads, and 2.3 on a clock of twelve hours."""
    hours, minutes = map(int, re.split(r"\D+", time))
    return frozenset(round(hour + minutes / 100, 2) for hour in (hours, hours % _HOURS or _HOURS))


def _values(match: re.Match[str]) -> frozenset[float]:
    if match["plain"]:
        return frozenset({float(match["plain"].replace(",", "."))})
    if match["indian"]:
        return frozenset({float(match["indian"].replace(",", ""))})
    token: str = match["grouped"] or match["short_date"].rstrip(".")
    if match["grouped"] is None:
        return frozenset({float(token)})
    return _grouped_values(token, separator=match["sep"])


def _grouped_values(token: str, separator: str) -> frozenset[float]:
    """Groups of three digits are thousands; a single group after a full stop or comma may also be decimals."""
    head, *groups = token.split(separator)
    tail = "".join(groups)
    whole = re.sub(r"[.,]", ".", head + tail)
    values = {float(whole)}
    if separator in ".," and len(groups) == 1 and tail.isdigit():
        values.add(float(f"{head}.{tail}"))
    return frozenset(values)
