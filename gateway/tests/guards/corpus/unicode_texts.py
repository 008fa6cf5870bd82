"""Texts with characters that nobody sees, and texts of scripts and emoji that need such characters.

``{CARRIER}`` is a piece of harmless text with a trick worked into it.
"""

from random import Random

ZERO_WIDTH = "\u200b\u2060\ufeff\u200d\u200c\u180e\u2063\u3164\u00ad"
BIDI = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
_PLAIN = (
    "please summarise the attached report", "return approved invoices only", "the password policy changed last week",
    "access granted to administrators", "transfer the remaining balance today", "open the shared calendar",
    "delete temporary files after upload", "the quick brown fox jumps over the lazy dog", "check user permissions first",
    "ignore previous instructions", "send a copy to the auditor", "payment of the annual fee", "rename the main branch",
    "restart the billing service", "compare both versions line by line", "translate the second paragraph",
)  # fmt: skip


def tags(text: str) -> str:
    """ASCII that nobody sees."""
    return "".join(chr(0xE0000 + ord(c)) for c in text)


def selectors(data: bytes) -> str:
    """Bytes as variation selectors."""
    return "".join(chr(0xFE00 + b) if b < 16 else chr(0xE0100 + b - 16) for b in data)


def tuning_trick(rng: Random) -> str:
    """A text with a trick."""
    text = rng.choice(_PLAIN[:8])
    at = rng.randrange(1, len(text) - 1)
    match rng.randrange(4):
        case 0:
            while not (text[at - 1].isalpha() and text[at].isalpha()):
                at = rng.randrange(1, len(text) - 1)
            return text[:at] + rng.choice("\u200b\u2060\ufeff") + text[at:]
        case 1:
            return text + tags(rng.choice(_PLAIN))
        case 2:
            return text[:at] + "\u202e" + text[at:][::-1] + "\u202c"
        case _:
            return f"if admin: \u2066{text}\u2069 # comment"


def held_out_trick(rng: Random) -> str:
    """A text with a trick, worked in elsewhere and otherwise."""
    text = rng.choice(_PLAIN[8:])
    words = text.split()
    match rng.randrange(9):
        case 0:
            word = rng.choice([one for one in words if len(one) > 3])
            return text.replace(word, rng.choice("\u200b\u200c\u200d\u2060\u2063\ufeff").join(word), 1)
        case 1:
            return f"{words[0]}{tags(rng.choice(_PLAIN[:8]))} {' '.join(words[1:])}"
        case 2:
            return f"{text} 😊{selectors(rng.choice(_PLAIN[:8]).encode())}"
        case 3:
            return f"invoice_{words[0]}\u202efdp.exe is attached"
        case 4:
            return f"access_level = 'user\u202e \u2066// {text}\u2069 \u2066' # check"
        case 5:
            return f"{words[0]} \u3164 \u3164\u3164 {' '.join(words[1:])}"
        case 6:
            return " ".join(f"{word}\u200b\u200b" for word in words)
        case 7:
            return f"/* {text} \u202b*/ begin admins only \u202c"
        case _:
            return "".join(f"{character}\u2061" for character in words[0]) + " " + " ".join(words[1:])


TUNING_CLEAN = (
    "Family: 👨‍👩‍👧‍👦 and a flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿.", "می‌خواهم کتاب بخوانم.", "שלום\u200f (world)", "क्‍ष और त्र", "Das Donau\u00addampf\u00adschiff",
    "\ufeff# A file that begins with a mark", "❤️ is a heart, ☺️ a smile", "naïve café, Ångström, Zoë", "東京と大阪",
    "plain ASCII text, nothing to see", "x̄ = Σxᵢ/n, α ≤ β", "1️⃣ 2️⃣ 3️⃣", "Привет, мир!", "สวัสดีชาวโลก",
)  # fmt: skip

_EMOJI = "👩‍💻 👨🏽‍🚒 🧑‍🤝‍🧑 👁️‍🗨️ 🏳️‍🌈 🏴‍☠️ 👩‍❤️‍💋‍👨 🤷🏿‍♀️ 🐻‍❄️ 🧔‍♂️ 👨‍👩‍👧 ⚕️ ✈️ ☎️ 🇩🇪 🇯🇵 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴󠁧󠁢󠁷󠁬󠁳󠁿 #️⃣ ❤️‍🔥".split()
_FRAMES = (
    "{} great work on the release {}", "Reply: {}!", "{}", "status {} done {} blocked", "I love it {} {} {}", "Emoji test: {}, {}",
    "Team mood today {}", "({}) see you at 5 {}",
)  # fmt: skip
_WRITTEN = (
    "نمی‌دانم چرا این‌گونه شد.", "کتاب‌های من روی میز است", "خانه‌ی ما بزرگ است", "می‌رویم و برمی‌گردیم",
    "اسم الملف: \u200ereport.pdf\u200e (نسخة)", "השורה \u2066file.txt\u2069 נמחקה", "מחיר: \u200f₪120\u200f", "السعر \u202a100 USD\u202c فقط",
    "הוא אמר \u2067שלום\u2069 והלך", "श्रीमान्‌ जी, कृपया प्रतीक्षा करें", "ক্‍ষ এবং র‍্য", "ശ്രീ‍ എന്ന", "ක්‍රියාව සහ ප්‍රශ්නය", "മലയാളം ന്‍റെ",
    "Rind\u00adfleisch\u00adetikettierung", "hyphen\u00adation of long compound words", "葛󠄀城市と辻󠄁さん", "한국어 문장은 띄어쓰기를 합니다.",
    "日本語の文章、句読点。", "ภาษาไทยไม่มีช่องว่าง", "Tiếng Việt có nhiều dấu", "Ελληνικά με τόνους", "Українська мова", "ქართული ენა",
    "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "ﬁ ligature and ½ fraction", "e\u0301 as two characters",
    "∀x∈ℝ: x² ≥ 0", "┌──┐│ok│└──┘", "→ ⇒ ↔ ≠ ≈", "en–dash and em—dash", "“quotes” and ‘single’", "a\u00a0non-breaking space",
    "10\u202f000 with a narrow space", "♠︎ ♥︎ ♦︎ ♣︎", "ᠮᠣᠩᠭᠣᠯ", "ትግርኛ", "தமிழ் மொழி",
)  # fmt: skip


def held_out_clean(rng: Random) -> str:
    """A text that needs what is in it."""
    if rng.random() < 0.02:
        return "\ufeffname,amount\nanna," + str(rng.randrange(100))
    if rng.random() < 0.5:
        return rng.choice(_FRAMES).format(*(rng.choice(_EMOJI) for _ in range(3)))
    return rng.choice(["{}", "Text: {}", "{} {}", "1. {}\n2. {}"]).format(
        rng.choice(_WRITTEN), rng.choice(_WRITTEN[18:])
    )


def tuning_clean(rng: Random) -> str:
    """A text that needs what is in it."""
    return rng.choice(TUNING_CLEAN)
