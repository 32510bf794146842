"""Refusals: how assistants decline, by language.

Only phrases in which a writer speaks of itself as an assistant that will not or cannot answer: copy that apologises to
a customer must pass.
"""

from collections.abc import Mapping

from rewards.phrases import begins_with_phrase

PHRASES: Mapping[str, tuple[str, ...]] = {
    "en": (
        "as an ai", "i'm an ai", "i am an ai", "as a language model", "i can't help with", "i cannot help with",
        "i can't assist", "i cannot assist", "i'm unable to assist", "i am unable to assist", "i'm not able to help",
        "i can't fulfill", "i cannot fulfill", "i can't write", "i cannot write", "i'm sorry, but i can't",
        "i'm sorry, but i cannot", "i'm sorry, i can't", "i apologize, but i cannot", "i won't be able to help",
    ),
    "de": (
        "als ki", "als sprachmodell", "ich bin eine ki", "ich kann dabei nicht helfen", "ich kann ihnen dabei nicht",
        "ich kann dir dabei nicht", "es tut mir leid, aber ich kann", "tut mir leid, ich kann",
        "ich kann diese anfrage nicht", "ich kann diesen text nicht",
    ),
    "fr": (
        "en tant qu'ia", "en tant que modèle de langage", "en tant qu'intelligence artificielle", "je suis une ia",
        "je ne peux pas vous aider", "je ne peux pas t'aider", "je ne peux pas répondre à", "désolé, mais je ne peux",
        "je suis désolé, mais je ne", "je ne suis pas en mesure de",
    ),
    "es": (
        "como modelo de lenguaje", "como una ia", "como ia", "como inteligencia artificial", "soy una ia",
        "no puedo ayudarte con", "no puedo ayudarle con", "lo siento, pero no puedo", "no puedo cumplir con",
        "no me es posible ayudar",
    ),
    "it": (
        "come modello linguistico", "come ia,", "come intelligenza artificiale", "sono un'intelligenza artificiale",
        "non posso aiutarti", "non posso aiutarla", "mi dispiace, ma non posso", "non sono in grado di aiutar",
    ),
    "pt": (
        "como modelo de linguagem", "como uma ia", "como ia,", "como inteligência artificial", "sou uma ia",
        "não posso ajudar com", "não posso ajudá-lo", "desculpe, mas não posso", "lamento, mas não posso",
        "sinto muito, mas não posso",
    ),
    "nl": (
        "als ai", "als taalmodel", "ik ben een ai", "ik kan je daar niet mee helpen", "ik kan u daar niet mee helpen",
        "het spijt me, maar ik kan", "sorry, maar ik kan", "ik kan niet voldoen aan",
    ),
    "pl": (
        "jako model językowy", "jako sztuczna inteligencja", "jako ai", "jestem sztuczną inteligencją",
        "nie mogę pomóc", "nie mogę ci pomóc", "przykro mi, ale nie mogę", "przepraszam, ale nie mogę",
    ),
    "cs": (
        "jako jazykový model", "jako umělá inteligence", "jsem umělá inteligence", "s tím nemohu pomoci",
        "omlouvám se, ale nemohu", "je mi líto, ale nemohu",
    ),
    "sv": (
        "som en ai", "som språkmodell", "jag är en ai", "jag kan inte hjälpa", "jag är ledsen, men jag kan inte",
        "tyvärr kan jag inte hjälpa",
    ),
    "tr": (
        "bir yapay zeka olarak", "bir dil modeli olarak", "ben bir yapay zeka", "bu konuda yardımcı olamam",
        "üzgünüm, ancak bu konuda", "üzgünüm ama bu konuda",
    ),
    "uk": (
        "як мовна модель", "як штучний інтелект", "я штучний інтелект", "я не можу допомогти", "на жаль, я не можу",
        "вибачте, але я не можу",
    ),
    "ru": (
        "как языковая модель", "как искусственный интеллект", "я искусственный интеллект", "я не могу помочь",
        "к сожалению, я не могу", "извините, но я не могу",
    ),
    "ar": (
        "كنموذج لغوي", "بصفتي نموذج", "بصفتي ذكاء", "أنا نموذج لغوي", "لا أستطيع مساعدتك", "لا يمكنني مساعدتك",
        "عذرًا، لا يمكنني", "عذراً، لا يمكنني", "آسف، لا أستطيع", "أعتذر، لكنني لا",
    ),
    "hi": (
        "एक एआई के रूप में", "एआई भाषा मॉडल", "भाषा मॉडल के रूप में", "मैं एक एआई", "मैं इसमें मदद नहीं कर सकता",
        "मैं आपकी मदद नहीं कर सकता", "क्षमा करें, मैं यह नहीं", "माफ़ कीजिए, लेकिन मैं",
    ),
    "ja": (
        "aiとして", "言語モデルとして", "私はaiです", "お手伝いできません", "お答えできません",
        "ご要望にはお応えできません",
    ),
    "zh": (
        "作为一个ai", "作为ai", "作为人工智能", "作为一个人工智能", "作为语言模型", "作为一个语言模型", "我无法帮助",
        "我不能帮助", "抱歉，我无法", "抱歉，我不能", "对不起，我无法", "对不起，我不能",
    ),
    "ko": (
        "ai로서", "인공지능으로서", "언어 모델로서", "저는 ai", "도와드릴 수 없습니다", "도움을 드릴 수 없습니다",
        "죄송하지만 저는", "죄송합니다만, 저는",
    ),
}  # fmt: skip
"""Lower-case phrases with straight apostrophes. All languages are searched: models refuse in English most of all."""


def is_refusal(text: str) -> bool:
    """True when the start of ``text`` holds a refusal in any language of the table."""
    return begins_with_phrase(text, PHRASES)
