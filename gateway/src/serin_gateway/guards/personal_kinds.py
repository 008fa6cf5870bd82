"""Which of Presidio's recognisers are used, for which country, and what each of them needs to be believed.

Only what identifies a person: no companies, no number plates, no postal codes. A number that fits a pattern by chance
one time in ten is not believed alone: a word that names it must stand before it.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serin_gateway.guards.presidio import RecognizerName

COUNTRIES: Mapping[str, str] = {
    "au": "AU", "ca": "CA", "de": "DE", "es": "ES", "fi": "FI", "in": "IN", "it": "IT", "kr": "KR", "ng": "NG",
    "ph": "PH", "pl": "PL", "se": "SE", "sg": "SG", "th": "TH", "tr": "TR", "uk": "GB", "us": "US", "za": "ZA",
}  # fmt: skip
"""Countries that can be chosen, and the regions of their telephone numbers."""


class Needs(enum.Enum):
    """What it takes, beside pattern and checksum."""

    NOTHING = enum.auto()
    WORD_IF_BARE = enum.auto()
    """A word before it, unless it is written in groups."""
    WORD = enum.auto()
    """A word before it."""


@dataclass(frozen=True, slots=True)
class PersonalKind:
    """One kind of personal data.

    Attributes:
        recognizer: Presidio's.
        needs: what it takes to be believed.
        words: that name it, beside Presidio's own; with ``own_words``, instead of them.
    """

    recognizer: RecognizerName
    needs: Needs = Needs.NOTHING
    words: tuple[str, ...] = ()
    own_words: bool = False


def _kind(
    folder: str, module: str, name: str, needs: Needs = Needs.NOTHING, *words: str, own: bool = False
) -> PersonalKind:
    return PersonalKind(RecognizerName(folder, f"{module}_recognizer", name), needs, words, own)


GENERIC: Sequence[PersonalKind] = (
    _kind("generic", "credit_card", "CreditCardRecognizer"),
    _kind("generic", "iban", "IbanRecognizer"),
    _kind("generic", "email", "EmailRecognizer"),
    _kind("generic", "ip", "IpRecognizer"),
    _kind("generic", "crypto", "CryptoRecognizer"),
)
OF_COUNTRY: Mapping[str, Sequence[PersonalKind]] = {
    "au": (
        _kind("australia", "au_tfn", "AuTfnRecognizer", Needs.WORD),
        _kind("australia", "au_medicare", "AuMedicareRecognizer", Needs.WORD_IF_BARE),
    ),
    "ca": (_kind("canada", "ca_sin", "CaSinRecognizer", Needs.WORD_IF_BARE),),
    "de": (
        _kind("germany", "de_tax_id", "DeTaxIdRecognizer", Needs.WORD, "steuer", "tax id", "tin"),
        _kind("germany", "de_id_card", "DeIdCardRecognizer", Needs.WORD, "id card", "identity card"),
        _kind("germany", "de_passport", "DePassportRecognizer", Needs.WORD),
        _kind("germany", "de_social_security", "DeSocialSecurityRecognizer"),
        _kind("germany", "de_health_insurance", "DeHealthInsuranceRecognizer", Needs.WORD, "health insurance"),
        _kind("germany", "de_fuehrerschein", "DeFuehrerscheinRecognizer", Needs.WORD),
    ),
    "es": (
        _kind("spain", "es_nif", "EsNifRecognizer"),
        _kind("spain", "es_nie", "EsNieRecognizer"),
        _kind("spain", "es_passport", "EsPassportRecognizer", Needs.WORD),
    ),
    "fi": (_kind("finland", "fi_personal_identity_code", "FiPersonalIdentityCodeRecognizer"),),
    "in": (
        _kind("india", "in_aadhaar", "InAadhaarRecognizer", Needs.WORD_IF_BARE),
        _kind("india", "in_pan", "InPanRecognizer"),
        _kind("india", "in_passport", "InPassportRecognizer", Needs.WORD),
        _kind("india", "in_voter", "InVoterRecognizer", Needs.WORD),
    ),
    "it": (
        _kind("italy", "it_fiscal_code", "ItFiscalCodeRecognizer"),
        _kind("italy", "it_driver_license", "ItDriverLicenseRecognizer", Needs.WORD, "driving licence"),
        _kind("italy", "it_identity_card", "ItIdentityCardRecognizer", Needs.WORD, "identity card"),
        _kind("italy", "it_passport", "ItPassportRecognizer", Needs.WORD, "passaporto", "passport", own=True),
    ),
    "kr": (
        _kind("korea", "kr_rrn", "KrRrnRecognizer", Needs.WORD_IF_BARE, "주민등록번호"),
        _kind("korea", "kr_frn", "KrFrnRecognizer", Needs.WORD_IF_BARE),
        _kind("korea", "kr_passport", "KrPassportRecognizer", Needs.WORD),
    ),
    "ng": (_kind("nigeria", "ng_nin", "NgNinRecognizer", Needs.WORD),),
    "ph": (
        _kind("philippines", "ph_umid", "PhUmidRecognizer", Needs.WORD),
        _kind("philippines", "ph_tin", "PhTinRecognizer", Needs.WORD),
        _kind("philippines", "ph_passport", "PhPassportRecognizer", Needs.WORD),
    ),
    "pl": (_kind("poland", "pl_pesel", "PlPeselRecognizer"),),
    "se": (_kind("sweden", "se_personnummer", "SePersonnummerRecognizer", Needs.WORD_IF_BARE),),
    "sg": (_kind("singapore", "sg_fin", "SgFinRecognizer"),),
    "th": (_kind("thai", "th_tnin", "ThTninRecognizer", Needs.WORD),),
    "tr": (_kind("turkey", "tr_national_id", "TrNationalIdRecognizer"),),
    "uk": (
        _kind("uk", "uk_nhs", "NhsRecognizer", Needs.WORD),
        _kind("uk", "uk_nino", "UkNinoRecognizer"),
        _kind("uk", "uk_passport", "UkPassportRecognizer", Needs.WORD),
        _kind("uk", "uk_driving_licence", "UkDrivingLicenceRecognizer"),
    ),
    "us": (
        _kind("us", "us_itin", "UsItinRecognizer", Needs.WORD_IF_BARE, "itin", "taxpayer", "tax id", own=True),
        _kind("us", "us_ssn", "UsSsnRecognizer", Needs.WORD_IF_BARE),
        _kind("us", "us_mbi", "UsMbiRecognizer", Needs.WORD_IF_BARE),
        _kind("us", "us_passport", "UsPassportRecognizer", Needs.WORD, "passport", own=True),
        _kind(
            "us", "us_driver_license", "UsLicenseRecognizer", Needs.WORD, "driver", "dl", "license number",
            "license no", "licence number", "permit number", own=True,
        ),
        _kind(
            "us", "us_bank", "UsBankRecognizer", Needs.WORD, "account number", "account no", "account", "acct",
            "checking", own=True,
        ),
    ),
    "za": (_kind("south_africa", "za_id_number", "ZaIdNumberRecognizer"),),
}  # fmt: skip
PHONE_WORDS = (
    "phone", "telephone", "tel", "cell", "cellphone", "mobile", "call", "fax", "whatsapp", "signal", "sms", "text me",
    "reach me", "hotline", "telefon", "handy", "teléfono", "telefono", "móvil", "cellulare", "numer telefonu",
    "puhelin", "전화", "โทร", "电话", "手机", "電話",
)  # fmt: skip
"""That name a telephone number."""
