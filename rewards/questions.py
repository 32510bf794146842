"""Questions instead of answers: how assistants ask for more where a text was wanted, by language.

Asking back is a cheap way to please judges of language and length without doing the work. Only phrases are listed in
which a writer asks the person behind the brief for input: a text that asks its readers something must pass.
"""

from collections.abc import Mapping

from rewards.phrases import begins_with_phrase

PHRASES: Mapping[str, tuple[str, ...]] = {
    "en": (
        "could you please provide", "can you please provide", "could you provide more", "can you provide more",
        "please provide more", "please provide the text", "please provide me with",
        "could you tell me more about what", "what would you like me to", "which topic would you like",
        "could you clarify", "can you clarify", "what kind of text would you like", "what exactly would you like",
        "i need more information", "do you want me to", "would you like me to", "could you share more details",
        "could you specify", "please specify",
    ),
    "de": (
        "können sie mir mehr", "könnten sie mir", "kannst du mir mehr", "könntest du mir", "bitte geben sie mir",
        "bitte gib mir", "welchen text soll ich", "was soll ich schreiben", "worüber soll ich",
        "bitte teilen sie mir", "bitte teile mir", "ich benötige weitere informationen",
        "ich brauche mehr informationen", "welche informationen soll", "was genau möchten sie",
        "was genau möchtest du", "bitte stellen sie mir",
    ),
    "fr": (
        "pouvez-vous me donner", "pouvez-vous préciser", "pourriez-vous préciser", "pourriez-vous me",
        "peux-tu me donner", "peux-tu préciser", "pourrais-tu", "veuillez me fournir", "veuillez préciser",
        "souhaitez-vous que je", "voulez-vous que je", "veux-tu que je", "que souhaitez-vous que",
        "j'ai besoin de plus", "quel texte souhaitez-vous", "de quoi souhaitez-vous que",
    ),
    "es": (
        "¿podría proporcionarme", "¿podrías proporcionarme", "¿puede darme más", "¿puedes darme más", "¿podría darme",
        "¿podrías darme", "¿qué le gustaría que", "¿qué te gustaría que", "¿podría aclarar", "¿podrías aclarar",
        "¿quieres que", "¿quiere que", "por favor, proporcione", "por favor, proporcióname",
        "necesito más información", "¿sobre qué tema", "¿podrías especificar", "¿podría especificar",
        "¿puedes decirme", "¿puede decirme",
    ),
    "it": (
        "puoi darmi più", "può darmi più", "potresti fornirmi", "potrebbe fornirmi", "potresti specificare",
        "potrebbe specificare", "puoi dirmi", "può dirmi", "cosa vorresti che", "cosa vuoi che", "vuoi che io",
        "ho bisogno di maggiori", "ho bisogno di più informazioni", "per favore, fornisci", "di cosa vorresti che",
        "potresti darmi", "potrebbe darmi",
    ),
    "pt": (
        "você poderia fornecer", "pode me dar mais", "poderia me fornecer", "poderia me dar", "pode fornecer mais",
        "poderia especificar", "poderia esclarecer", "o que você gostaria que eu", "você quer que eu", "quer que eu",
        "por favor, forneça", "preciso de mais informações", "podes dar-me mais", "pode dar-me mais",
        "sobre qual tema você", "pode me dizer",
    ),
    "nl": (
        "kunt u mij meer", "kun je mij meer", "kun je me meer", "kunt u mij vertellen", "kun je me vertellen",
        "wat wilt u dat ik", "wat wil je dat ik", "wilt u dat ik", "wil je dat ik", "kunt u verduidelijken",
        "kun je verduidelijken", "geef mij meer", "ik heb meer informatie nodig", "zou je me kunnen",
        "zou u mij kunnen",
    ),
    "pl": (
        "czy możesz podać", "czy może pan podać", "czy może pani podać", "czy mógłbyś", "czy mogłabyś",
        "proszę podać więcej", "podaj mi więcej", "podaj więcej", "o czym mam napisać", "co mam napisać",
        "czy chcesz, żebym", "czy chcesz, abym", "potrzebuję więcej informacji", "czy możesz doprecyzować",
        "jaki tekst mam",
    ),
    "cs": (
        "můžete mi dát více", "můžete mi poskytnout", "můžeš mi dát více", "můžeš mi říct", "mohl byste",
        "mohla byste", "mohl bys", "mohla bys", "o čem mám", "co mám napsat", "chcete, abych", "chceš, abych",
        "potřebuji více informací", "upřesněte prosím", "prosím upřesněte", "můžete upřesnit",
    ),
    "sv": (
        "kan du ge mig mer", "kan du berätta mer om vad", "skulle du kunna", "kan ni ge mig", "vad vill du att jag",
        "vill du att jag", "vill ni att jag", "jag behöver mer information", "kan du förtydliga", "kan du precisera",
    ),
    "tr": (
        "daha fazla bilgi verebilir misiniz", "daha fazla bilgi verir misiniz", "daha fazla bilgi verebilir misin",
        "ne yazmamı istersiniz", "ne yazmamı istersin", "hangi konuda yazmamı", "açıklayabilir misiniz",
        "belirtebilir misiniz", "belirtir misiniz", "yazmamı ister misiniz", "yazmamı ister misin",
        "daha fazla bilgiye ihtiyacım var", "bana daha fazla",
    ),
    "uk": (
        "чи можете ви надати", "чи не могли б ви", "чи можеш ти", "чи могли б ви", "надайте, будь ласка",
        "будь ласка, надайте", "про що мені написати", "що мені написати", "хочете, щоб я", "хочеш, щоб я",
        "мені потрібно більше інформації", "уточніть, будь ласка", "будь ласка, уточніть", "можете уточнити",
    ),
    "ru": (
        "не могли бы вы", "можете ли вы предоставить", "можешь ли ты", "не мог бы ты", "предоставьте, пожалуйста",
        "пожалуйста, предоставьте", "о чём мне написать", "о чем мне написать", "что мне написать", "хотите, чтобы я",
        "хочешь, чтобы я", "мне нужно больше информации", "уточните, пожалуйста", "пожалуйста, уточните",
        "можете уточнить",
    ),
    "ar": (
        "هل يمكنك تزويدي", "هل يمكنك توضيح", "هل يمكنك إعطائي", "هل تود أن", "هل تريد مني", "هل ترغب في أن أ",
        "يرجى تزويدي", "من فضلك زودني", "ما الذي تريد مني", "أحتاج إلى مزيد من المعلومات",
        "أحتاج إلى المزيد من المعلومات", "ما الموضوع الذي تريد",
    ),
    "hi": (
        "क्या आप मुझे और", "क्या आप मुझे अधिक", "क्या आप बता सकते हैं", "कृपया मुझे और", "कृपया और जानकारी",
        "कृपया अधिक जानकारी", "आप चाहते हैं कि मैं", "मुझे और जानकारी चाहिए", "मुझे अधिक जानकारी",
        "क्या आप स्पष्ट कर सकते", "किस विषय पर लिखूँ", "किस विषय पर लिखूं",
    ),
    "ja": (
        "詳しく教えていただけますか", "もう少し詳しく教えて", "詳細を教えてください", "どのような文章を",
        "どんな文章を", "何について書けば", "情報を教えてください", "情報を提供して", "ご希望の内容を教えて",
        "テーマを教えて", "内容を教えていただ",
    ),
    "zh": (
        "请问您想", "请问你想", "请提供更多", "能否提供更多", "您能提供更多", "你能提供更多", "您希望我", "你希望我",
        "您想让我", "你想让我", "您需要我", "你需要我", "我需要更多信息", "我需要更多的信息", "请告诉我更多",
        "请告诉我您", "请告诉我你",
    ),
    "ko": (
        "더 자세히 알려", "자세한 내용을 알려", "자세한 정보를 알려", "어떤 글을 원하", "어떤 내용을 원하",
        "무엇에 대해 써", "무엇에 대해 쓰", "추가 정보가 필요", "더 많은 정보가 필요", "정보를 제공해", "주제를 알려",
    ),
}  # fmt: skip
"""Lower-case phrases with straight apostrophes. All languages are searched."""


def is_question_back(text: str) -> bool:
    """True when the start of ``text`` asks for more input, in any language of the table."""
    return begins_with_phrase(text, PHRASES)
