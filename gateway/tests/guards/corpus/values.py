"""Values that look real and belong to nobody: numbers with right checksums, addresses, telephone numbers.

Every function takes the source of chance; nothing else decides what comes out.
"""

import string
from random import Random

import phonenumbers

DIGITS = string.digits
FIRST = (
    "Amara Benoit Carla Dmitri Elif Farid Greta Hiro Ines Jonas Katja Lamine Mirela Nuno Oona Pavel Quentin Rosa Sanna "
    "Tadeo Ulrike Viktor Wanda Ximena Yusuf Zofia Aisha Bruno Chiara Darko"
).split()
LAST = (
    "Abara Bianchi Castro Dubois Eriksen Fischer Gupta Hansen Ivanova Jensen Kowalski Lindqvist Moreau Novak Okafor "
    "Petrov Quispe Rossi Sato Tanaka Urquhart Varga Wagner Xu Yilmaz Zimmer"
).split()
DOMAINS = (
    "example.com example.org mail.example.net contoso.co.uk fabrikam.de acme-corp.io nordwind.se posta.it univ-lyon.fr "
    "health.nhs.uk school.edu.au startup.ai bueno.es post.ch studio.jp firma.pl intranet.local"
).split()


def digits(rng: Random, count: int) -> str:
    """So many digits."""
    return "".join(rng.choice(DIGITS) for _ in range(count))


def letters(rng: Random, count: int, of: str = string.ascii_uppercase) -> str:
    """So many characters of an alphabet."""
    return "".join(rng.choice(of) for _ in range(count))


def luhn_digit(number: str) -> str:
    """The digit that makes a number pass Luhn's check."""
    total = 0
    for at, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if at % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def email(rng: Random) -> str:
    """An address."""
    first, last, domain = rng.choice(FIRST), rng.choice(LAST), rng.choice(DOMAINS)
    local = rng.choice(
        [f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{digits(rng, 2)}", f"{first}+{letters(rng, 4).lower()}",
         f"{last}-{first}", first + digits(rng, 4)]
    )  # fmt: skip
    return f"{local}@{domain}".lower() if rng.random() < 0.8 else f"{local}@{domain}"


def card(rng: Random) -> str:
    """A card of one of the usual issuers, in one of the usual forms."""
    kind = rng.choice(["visa", "visa", "mastercard", "mastercard2", "amex", "discover"])
    prefix, length = {
        "visa": ("4", 16), "mastercard": ("5" + rng.choice("12345"), 16), "mastercard2": ("2" + rng.choice("3456"), 16),
        "amex": ("3" + rng.choice("47"), 15), "discover": ("6011", 16),
    }[kind]  # fmt: skip
    body = prefix + digits(rng, length - len(prefix) - 1)
    number = body + luhn_digit(body)
    groups = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    return grouped(number, groups, rng.choice(["", " ", " ", "-"]))


def grouped(number: str, sizes: tuple[int, ...], sign: str) -> str:
    """A number in groups."""
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return sign.join([*parts, number[at:]] if number[at:] else parts)


def iban(rng: Random) -> str:
    """An account of one of a few countries (ISO 13616)."""
    country, bank = rng.choice(
        [("DE", digits(rng, 18)), ("FR", digits(rng, 10) + digits(rng, 11) + digits(rng, 2)),
         ("GB", letters(rng, 4) + digits(rng, 14)), ("ES", digits(rng, 20)), ("NL", letters(rng, 4) + digits(rng, 10)),
         ("CH", digits(rng, 17)), ("AT", digits(rng, 16)), ("PL", digits(rng, 24)), ("SE", digits(rng, 20)),
         ("IT", letters(rng, 1) + digits(rng, 22)), ("BE", digits(rng, 12))]
    )  # fmt: skip
    as_number = "".join(str(int(c, 36)) for c in bank + country + "00")
    account = f"{country}{98 - int(as_number) % 97:02d}{bank}"
    return account if rng.random() < 0.4 else " ".join(account[at : at + 4] for at in range(0, len(account), 4))


def ip(rng: Random) -> str:
    """An address that is routed in the world."""
    if rng.random() < 0.25:
        return "2a0" + ":".join(f"{rng.randrange(1, 65536):x}" for _ in range(8))[3:]
    return f"{rng.choice([5, 23, 45, 81, 91, 104, 151, 185, 212])}.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


_NATIONAL = {
    "US": 10,
    "GB": 10,
    "DE": 11,
    "ES": 9,
    "IT": 10,
    "IN": 10,
    "AU": 9,
    "SE": 9,
    "PL": 9,
    "SG": 8,
    "ZA": 9,
    "TR": 10,
}


def phone(rng: Random, form: str = "") -> str:
    """A number that a country may give, international or as its people write it."""
    while True:
        region = rng.choice(list(_NATIONAL))
        try:
            number = phonenumbers.parse(digits(rng, _NATIONAL[region]), region)
        except phonenumbers.NumberParseException:
            continue
        if not phonenumbers.is_valid_number(number):
            continue
        form = form or rng.choice(["INTERNATIONAL", "INTERNATIONAL", "E164", "NATIONAL"])
        written = phonenumbers.format_number(number, getattr(phonenumbers.PhoneNumberFormat, form))
        if form == "NATIONAL" and " " not in written and "-" not in written:
            continue
        return written


def us_ssn(rng: Random) -> str:
    """A social security number."""
    area = rng.choice([n for n in range(100, 899) if n != 666])
    return f"{area}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"


def us_itin(rng: Random) -> str:
    """A taxpayer's number."""
    return f"9{digits(rng, 2)}-{rng.choice([70, 75, 82, 90, 94])}-{digits(rng, 4)}"


def us_passport(rng: Random) -> str:
    """A passport."""
    return rng.choice([digits(rng, 9), letters(rng, 1) + digits(rng, 8)])


def us_driver_license(rng: Random) -> str:
    """A driver's licence."""
    return rng.choice([letters(rng, 1) + digits(rng, 7), letters(rng, 1) + digits(rng, 12)])


def us_bank_number(rng: Random) -> str:
    """An account."""
    return digits(rng, rng.choice([9, 10, 11, 12]))


def us_mbi(rng: Random) -> str:
    """A Medicare beneficiary's number."""
    a = "ACDEFGHJKMNPQRTUVWXY"
    n = f"{rng.randrange(1, 10)}{rng.choice(a)}{rng.randrange(10)}{rng.randrange(10)}{rng.choice(a)}{rng.randrange(10)}"
    return grouped(n + f"{rng.randrange(10)}{rng.choice(a)}{rng.choice(a)}{digits(rng, 2)}", (4, 3, 4), "-")


def uk_nhs(rng: Random) -> str:
    """An NHS number (modulus 11)."""
    while True:
        body = rng.choice("456789") + digits(rng, 8)
        check = 11 - sum(int(d) * w for d, w in zip(body, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            return grouped(body + str(check % 11), (3, 3, 4), rng.choice([" ", " ", ""]))


def uk_nino(rng: Random) -> str:
    """A National Insurance number."""
    prefix = rng.choice(["AB", "CE", "HJ", "JK", "LM", "PR", "SW", "TX", "WZ", "YA"])
    return grouped(prefix + digits(rng, 6) + rng.choice("ABCD"), (2, 2, 2, 2, 1), rng.choice(["", " "]))


def uk_passport(rng: Random) -> str:
    """A passport."""
    return letters(rng, 2) + digits(rng, 7)


def de_tax_id(rng: Random) -> str:
    """A tax identification number: one digit twice, the others once (ISO 7064, MOD 11,10)."""
    while True:
        pool = rng.sample(DIGITS, 9)
        body = [*pool, rng.choice(pool)]
        rng.shuffle(body)
        if body[0] == "0" or any(body[i] == body[i + 1] == body[i + 2] for i in range(8)):
            continue
        product = 10
        for digit in body:
            total = (int(digit) + product) % 10 or 10
            product = total * 2 % 11
        return "".join(body) + str((11 - product) % 10)


def de_social_security(rng: Random) -> str:
    """A pension insurance number."""
    head = f"{rng.choice(['12', '15', '38', '52', '65'])}{rng.randrange(1, 29):02d}{rng.randrange(1, 13):02d}{rng.randrange(50, 99)}"
    letter, serial = rng.choice(string.ascii_uppercase), digits(rng, 2)
    plain = head + f"{ord(letter) - 64:02d}" + serial
    total = sum(
        sum(map(int, str(int(d) * f))) for d, f in zip(plain, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True)
    )
    return head + letter + serial + str(total % 10)


def es_nif(rng: Random) -> str:
    """A Spanish tax number."""
    number = digits(rng, 8)
    return number + rng.choice(["", "-"]) + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def es_nie(rng: Random) -> str:
    """A foreigner's number."""
    kind, number = rng.choice("XYZ"), digits(rng, 7)
    return kind + number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(str("XYZ".index(kind)) + number) % 23]


_CF_ODD = dict(zip(
    string.digits + string.ascii_uppercase,
    (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22,
     25, 24, 23), strict=True,
))  # fmt: skip


def it_fiscal_code(rng: Random) -> str:
    """A codice fiscale."""
    consonants = "BCDFGLMNPRSTV"
    body = letters(rng, 3, consonants) + letters(rng, 3, consonants) + f"{rng.randrange(50, 99)}"
    body += rng.choice("ABCDEHLMPRST") + f"{rng.choice([rng.randrange(1, 29), rng.randrange(41, 69)]):02d}"
    body += rng.choice("ABCDEFGHL") + f"{rng.randrange(100, 999)}"
    total = sum(_CF_ODD[c] if at % 2 == 0 else int(c, 36) - (10 if c.isalpha() else 0) for at, c in enumerate(body))
    return body + string.ascii_uppercase[total % 26]


def pl_pesel(rng: Random) -> str:
    """A PESEL."""
    body = f"{rng.randrange(50, 99)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{digits(rng, 4)}"
    return body + str(-sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True)) % 10)


def fi_hetu(rng: Random) -> str:
    """A Finnish personal identity code."""
    born, serial = (
        f"{rng.randrange(1, 29):02d}{rng.randrange(1, 13):02d}{rng.randrange(40, 99)}",
        f"{rng.randrange(2, 899):03d}",
    )
    return f"{born}-{serial}" + "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(born + serial) % 31]


def se_personnummer(rng: Random) -> str:
    """A Swedish personal number."""
    body = f"{rng.randrange(50, 99)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{digits(rng, 3)}"
    number = body + luhn_digit(body)
    return f"{number[:6]}-{number[6:]}"


_D = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
      (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
      (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
      (9, 8, 7, 6, 5, 4, 3, 2, 1, 0))  # fmt: skip
_P = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
      (8, 9, 1, 6, 0, 4, 3, 5, 2, 7), (9, 4, 5, 3, 1, 2, 6, 8, 7, 0), (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
      (2, 7, 9, 3, 8, 0, 6, 4, 1, 5), (7, 0, 4, 6, 9, 1, 3, 2, 5, 8))  # fmt: skip


def in_aadhaar(rng: Random) -> str:
    """An Aadhaar number (Verhoeff)."""
    body = rng.choice("23456789") + digits(rng, 10)
    check = 0
    for at, digit in enumerate(reversed(body), start=1):
        check = _D[check][_P[at % 8][int(digit)]]
    number = body + str(next(n for n in range(10) if _D[check][_P[0][n]] == 0))
    return grouped(number, (4, 4, 4), rng.choice([" ", "-"]))


def in_pan(rng: Random) -> str:
    """A permanent account number."""
    return letters(rng, 3) + rng.choice("PCFHT") + letters(rng, 1) + digits(rng, 4) + letters(rng, 1)


def au_tfn(rng: Random) -> str:
    """A tax file number."""
    while True:
        number = rng.choice("123456789") + digits(rng, 8)
        if sum(int(d) * w for d, w in zip(number, (1, 4, 3, 7, 5, 8, 6, 9, 10), strict=True)) % 11 == 0:
            return grouped(number, (3, 3, 3), " ")


def au_medicare(rng: Random) -> str:
    """A Medicare card."""
    body = rng.choice("23456") + digits(rng, 7)
    check = sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9), strict=True)) % 10
    return grouped(f"{body}{check}{rng.randrange(1, 10)}", (4, 5, 1), " ")


def ca_sin(rng: Random) -> str:
    """A social insurance number."""
    body = rng.choice("1234567") + digits(rng, 7)
    return grouped(body + luhn_digit(body), (3, 3, 3), rng.choice([" ", "-"]))


def sg_nric(rng: Random) -> str:
    """An identity card's number."""
    kind, number = rng.choice("STFG"), digits(rng, 7)
    total = sum(int(d) * w for d, w in zip(number, (2, 7, 6, 5, 4, 3, 2), strict=True)) + (4 if kind in "TG" else 0)
    return kind + number + ("JZIHGFEDCBA" if kind in "ST" else "XWUTRQPNMLK")[total % 11]


def kr_rrn(rng: Random) -> str:
    """A resident registration number."""
    body = f"{rng.randrange(50, 99)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{rng.choice('12')}{rng.randrange(0, 96):02d}{digits(rng, 3)}"
    total = sum(int(d) * w for d, w in zip(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True))
    return f"{body[:6]}-{body[6:]}{(11 - total % 11) % 10}"


def tr_id(rng: Random) -> str:
    """A Turkish identity number."""
    d = [rng.randrange(1, 10), *(rng.randrange(10) for _ in range(8))]
    tenth = (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10
    return "".join(map(str, [*d, tenth, (sum(d) + tenth) % 10]))


def za_id(rng: Random) -> str:
    """A South African identity number."""
    body = f"{rng.randrange(50, 99)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{digits(rng, 4)}08"
    return body + luhn_digit(body)


def bitcoin(rng: Random) -> str:
    """An address (Base58Check)."""
    from hashlib import sha256

    payload = b"\0" + rng.randbytes(20)
    raw = payload + sha256(sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[rest] + text
    return "1" + text


PERSONAL = {
    "EMAIL_ADDRESS": email, "CREDIT_CARD": card, "IBAN_CODE": iban, "IP_ADDRESS": ip, "PHONE_NUMBER": phone,
    "CRYPTO": bitcoin, "US_SSN": us_ssn, "US_ITIN": us_itin, "US_PASSPORT": us_passport, "US_MBI": us_mbi,
    "US_DRIVER_LICENSE": us_driver_license, "US_BANK_NUMBER": us_bank_number, "UK_NHS": uk_nhs, "UK_NINO": uk_nino,
    "UK_PASSPORT": uk_passport, "DE_TAX_ID": de_tax_id, "DE_SOCIAL_SECURITY": de_social_security, "ES_NIF": es_nif,
    "ES_NIE": es_nie, "IT_FISCAL_CODE": it_fiscal_code, "PL_PESEL": pl_pesel, "FI_PERSONAL_IDENTITY_CODE": fi_hetu,
    "SE_PERSONNUMMER": se_personnummer, "IN_AADHAAR": in_aadhaar, "IN_PAN": in_pan, "AU_TFN": au_tfn,
    "AU_MEDICARE": au_medicare, "CA_SIN": ca_sin, "SG_NRIC_FIN": sg_nric, "KR_RRN": kr_rrn, "TR_NATIONAL_ID": tr_id,
    "ZA_ID_NUMBER": za_id,
}  # fmt: skip
"""What makes a value of each kind."""
