"""How languages address their readers: the words and endings that only a formal or only an informal text uses.

Each language has two patterns. What both may mean stays out: German ``Sie`` and ``Ihr`` at the start of a sentence
(they, her), Spanish ``su``, Portuguese ``você`` (informal in Brazil, polite in Portugal), a polite Japanese ending that
``ね`` or ``よ`` softens. English is not in the table: it has one form of address.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from agent.script import WORD

_START = r"(?:^|(?<=[.!?…:–—»”\"]\s))[\s\"„“«»¡¿(*–—-]*"
"""Where a sentence begins, and with it an imperative."""
_END = r"(?=[\s。．.！!？?♪~…」』]*(?:\n|$)|[。．.！!？?♪~…])"


def _words(alternatives: str) -> str:
    return rf"(?<![{WORD}])(?:{alternatives})(?![{WORD}])"


def _openings(alternatives: str) -> str:
    """Imperatives: these words where a sentence begins."""
    return rf"{_START}(?:{alternatives})(?![{WORD}])"


_PATTERNS: Mapping[str, tuple[str, str]] = {
    "de": (
        r"(?<=[\w,;)–—-]\s)(?:Sie|Ihnen|Ihr(?:e[nmrs]?)?)(?!\w)",
        _words(r"[Dd](?:u|ich|ir|ein(?:e[nmrs]?|s)?)|[Ee](?:uch|uer|ure[nmrs]?)"),
    ),
    "fr": (
        _words(r"(?i:vous|votre|vos)|(?!(?i:chez|assez|nez|rez|allez-vous)(?!\w))[\w-]{2,}ez"),
        _words(r"(?i:tu|te|toi|ton|ta|tes)|[Tt]['’](?=\w)\w+")
        + "|"
        + _openings(r"Découvre|Profite|Essaie|Choisis|Viens|Rejoins|Réserve|Commande|Trouve|Goûte|Savoure|Clique"),
    ),
    "es": (
        _words(r"(?i:usted|ustedes|vd|vds|consigo)")
        + "|"
        + _openings(r"Descubra|Aproveche|Compre|Pida|Elija|Disfrute|Visite|Reserve|Haga|Pruebe|Encuentre|Consulte"),
        _words(
            r"(?i:tú|te|ti|contigo|tu|tus|vosotr[oa]s|vuestr[oa]s?|os|eres|tienes|puedes|quieres|necesitas|sabes|estás|"
            r"buscas|debes|vas|encontrarás|podrás|tendrás|disfrutarás)"
        )
        + "|"
        + _openings(r"Descubre|Aprovecha|Pide|Elige|Disfruta|Haz|Encuentra|Ven|Vive|Consigue|Regístrate|Únete"),
    ),
    "it": (
        r"(?<=[\w,;)–—-]\s)(?:Lei|La|Le|Suo|Sua|Suoi|Sue)(?!\w)(?=\s[a-zà-ù])|(?<!\w)\w+(?:ar|er|ir)(?:La|Le)(?!\w)|"
        + _openings(r"Scopra|Provi|Scelga|Venga|Approfitti|Prenoti|Si iscriva|Assapori|Lasci|Trovi"),
        _words(r"(?i:tu|ti|te|tuo|tua|tuoi|tue)|(?i:puoi|vuoi|hai|trovi|cerchi|devi|scoprirai|troverai|potrai)")
        + "|"
        + _openings(r"Scopri|Prova|Acquista|Scegli|Vieni|Approfitta|Prenota|Iscriviti|Assapora|Lasciati|Trova"),
    ),
    "pt": (
        _words(r"(?i:o senhor|a senhora|os senhores|as senhoras|ao senhor|à senhora|do senhor|da senhora|vossa|vossas)")
        + r"|(?<!\w)V\.\s?(?:S|Ex)\.?ª",
        _words(
            r"(?i:tu|te|ti|teu|tua|teus|tuas|contigo|podes|tens|queres|encontras|precisas|sabes|estás|gostas|vais)"
        )
        + "|"
        + _openings(r"Descobre|Escolhe|Vem|Experimenta|Encontra|Prova|Desfruta"),
    ),
    "pl": (
        _words(r"Pan(?:a|u|em|i|ią|ie|owie|ów|om|ami|iom|iami|iach)?|Państw(?:o|a|u|em)|(?i:proszę)"),
        _words(
            r"(?i:ciebie|cię|tobie|tobą|twój|twoja|twoje|twoim|twoimi|twoich|twoją|twojej|twojego|twojemu)|Ty|Ci|"
            r"(?!(?i:nasz|wasz|mysz|afisz|pasz|kasz|towarzysz|klisz|zasz|dusz)(?!\w))[\w]{2,}(?:asz|esz|isz|ysz)"
        )
        + "|"
        + _openings(r"Odkryj|Zamów|Sprawdź|Kup|Skorzystaj|Wybierz|Poznaj|Dołącz|Zobacz|Przyjdź|Spróbuj|Odwiedź"),
    ),
    "nl": (
        _words(r"(?i:u|uw|uzelf)"),
        _words(r"(?i:je|jij|jou|jouw|jullie|jezelf|jouwe)"),
    ),
    "tr": (
        _words(r"(?i:siz|sizi|size|sizin|sizden|sizinle|sizde|sizler)|\w{2,}[iıuü]n[iıuü]z\w{0,5}|\w{2,}[iıuü]rs[iıuü]n[iıuü]z"),
        _words(r"(?i:sen|seni|sana|senin|senden|seninle|sende)|\w{2,}[iıuüae]rs[iıuü]n|\w{2,}(?:ecek|acak)s[iı]n")
        + "|"
        + _openings(r"Keşfet|Dene|Gel|Seç|İncele|Kaçırma|Yararlan|Tat|Katıl"),
    ),
    "cs": (
        _words(r"(?i:vás|vám|vámi|váš|vaš(?:e|eho|im|ich|i|em|í|emu|ím|imi)|vy|(?:můž|chc|najd|získá|objev|bud|má|js)(?:e|í)?te)")
        + "|"
        + _openings(r"\w{2,}(?:te|ete)(?:\sse)?"),
        _words(r"(?i:tebe|tě|tobě|tebou|tvůj|tvoje|tvá|tvé|tvého|tvému|tvým|tvých|tvou|tví|tvoji)|(?i:máš|můžeš|chceš|najdeš|získáš|budeš|víš|jsi)")
        + "|"
        + _openings(r"Objev|Objednej|Vyzkoušej|Vyber|Přijď|Navštiv|Ochutnej|Získej|Podívej se"),
    ),
    "ru": (
        _words(r"(?i:вы|вас|вам|вами|ваш(?:а|е|и|его|ему|им|их|ими|ей|у|ем|ею)?)")
        + "|"
        + _openings(r"[А-ЯЁ][а-яё]+(?:йте|ите|ьте)(?:сь)?"),
        _words(
            r"(?i:ты|тебя|тебе|тобой|тобою|тво(?:й|я|ё|е|и|его|ему|им|их|ими|ей|ю|ём))|"
            r"(?!(?i:лишь|брешь|плешь)(?!\w))[а-яё]{2,}(?:ешь|ишь|ёшь)(?:ся)?"
        )
        + "|"
        + _openings(r"Узнай|Попробуй|Закажи|Выбери|Приходи|Открой|Купи|Найди|Получи"),
    ),
    "uk": (
        _words(r"(?i:ви|вас|вам|вами|ваш(?:а|е|і|ого|ому|им|их|ими|ої|ій|у|ою)?)")
        + "|"
        + _openings(r"[А-ЯІЇЄҐ][а-яіїєґ'’]+(?:йте|іть)(?:ся)?"),
        _words(
            r"(?i:ти|тебе|тобі|тобою|тв(?:ій|оя|оє|ої|ого|оєму|оїм|оїх|оїми|оєї|оїй|ою))|"
            r"(?!(?i:лиш|книш|афіш|ніш)(?!\w))[а-яіїєґ]{2,}(?:єш|еш|їш)(?:ся)?"
        )
        + "|"
        + _openings(r"Дізнайся|Спробуй|Замов|Обери|Приходь|Відкрий|Купи|Знайди"),
    ),
    "sv": (_words(r"(?i:ni|er|ert|era|eder|edert|edra)"), _words(r"(?i:du|dig|din|ditt|dina|dej)")),
    "hi": (
        _words(r"आप(?:का|की|के|को|से|में|ने)?|(?!(?:इस)?लिए|चाहिए)[\u0900-\u097f]+(?:इए|िए|िये|इये)"),
        _words(r"तुम(?:ने|को|से|में)?|तुम्हें|तुम्हार[ाीे]|तू|तुझे|तुझ|तेर[ाीे]"),
    ),
    "ja": (
        rf"(?:です|ます|ました|ません|でした|でしょう|ください|くださいませ|ましょう)か?{_END}|いただ(?:け|き|く)|ございま|いたします|お客様",
        (r"(?:だ|じゃん|(?<!です)(?<!ます)(?<!した)(?<!せん)(?<!しょう)[よねぞぜさ]|"
        rf"(?<!ま)(?<!で)す|(?<!し)た|[るくつぬむぐぶ]|(?<!しょ)う|(?<!くださ)い){_END}"),
    ),
    "ko": (
        rf"(?:니다|니까|시오|세요|[가-힣]요|죠){_END}",
        rf"(?:해|[아어야자네봐줘돼거]|거든|할래|을래|니|냐|(?<!니)다){_END}",
    ),
    "zh": ("您", "你"),
    "id": (_words(r"(?i:anda)"), _words(r"(?i:kamu|kau|kalian|engkau)")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Addressing:
    """How often a text addresses its readers in each way."""

    num_formal: int
    num_informal: int


def knows_address(language: str) -> bool:
    """True when the table has the language (ISO 639-1)."""
    return language in _PATTERNS


def count_addresses(text: str, language: str) -> Addressing:
    """Formal and informal address in ``text``. Raises KeyError for a language that is not in the table."""
    formal, informal = _compiled(language)
    return Addressing(sum(1 for _ in formal.finditer(text)), sum(1 for _ in informal.finditer(text)))


@cache
def _compiled(language: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    formal, informal = _PATTERNS[language]
    return re.compile(formal, re.MULTILINE), re.compile(informal, re.MULTILINE)
