"""Secrets: keys and tokens of known makers, private keys, passwords in addresses and assignments.

What has a form of its own is found by it. What has none (a password) is found by what stands before it, and must look
random: a placeholder is no secret. Knows nothing about who may have one.
"""

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serin_gateway.guards.detector import Finding, settled
from serin_gateway.guards.patterns import Pattern, compiled
from serin_gateway.guards.tails import word_start

REACH = 2048
"""Longest secret without white space that a stream waits for."""
KEY_REACH = 8192
"""Longest private key that it waits for."""
NAME_REACH = 120
"""So many characters before a value its name may begin."""
MIN_ENTROPY = 3.0
"""Bits a character that a value behind `secret =` has at least."""

_WORDS = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret(?:[_-]?key)?|client[_-]?secret|api[_-]?(?:key|secret|token)|apikey"
    r"|access[_-]?(?:key|token)|auth[_-]?(?:token|key)|refresh[_-]?token|session[_-]?token|private[_-]?(?:key|token)"
    r"|encryption[_-]?key|signing[_-]?(?:key|secret)|bot[_-]?token|deploy[_-]?token|credentials?"
    r"|secret[_-]?access[_-]?key|account[_-]?key|shared[_-]?access[_-]?key|webhook[_-]?secret|token|kennwort|passwort"
    r"|contrase(?:ñ|n)a|mot de passe"
)
_PLACEHOLDER = compiled(
    r"(?i)^(?:[*x.•_-]+|<.*>|\[.*\]|\{.*|\$\w+|\$[{(].*|%[A-Za-z_]+%|.*(?:example|placeholder|changeme|redacted|your[_-]?|my[_-]|dummy|"
    r"xxxx|\*\*\*|test[_-]?(?:key|token|secret|pass)|sample|none|null|true|false|undefined|optional|required|string|"
    r"process\.env|os\.environ|getenv|secrets?\.|vault|config[.\[]|settings\.|self\.|args\.|request\.|env\.|env\[).*)$"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of secret looks; the group ``it`` is the secret where there is more around it."""

    kind: str
    pattern: Pattern
    is_one: Callable[[str], bool] = lambda text: True


def _is_mixed(text: str) -> bool:
    """Digits and letters, none of the same few characters again and again."""
    return _entropy(text) >= MIN_ENTROPY and any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def _is_random(text: str) -> bool:
    """A value that somebody chose so that nobody guesses it, and no placeholder for one."""
    if len(text) < 8 or _PLACEHOLDER.match(text):
        return False
    kinds = sum(any(test(c) for c in text) for test in (str.isdigit, str.islower, str.isupper, _is_sign))
    return (
        kinds >= 2
        and (any(c.isdigit() for c in text) or kinds >= 3)
        and _entropy(text) >= min(MIN_ENTROPY, math.log2(len(text)) - 0.75)
    )


def _is_password(text: str) -> bool:
    return len(text) >= 3 and not _PLACEHOLDER.match(text) and text.lower() not in ("password", "pass", "secret")


def _is_sign(character: str) -> bool:
    return not character.isalnum()


def _is_jwt(text: str) -> bool:
    """Whether the first part says by which algorithm it is signed (RFC 7519)."""
    head = text.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and ("alg" in header or "enc" in header)


def _form(kind: str, expression: str, is_one: Callable[[str], bool] = _is_mixed) -> _Form:
    return _Form(kind, Pattern(rf"(?<![A-Za-z0-9_+/-])(?:{expression})(?![A-Za-z0-9_+/-])"), is_one)


_LONG = compiled(r"[A-Za-z0-9_+/=.~-]{16}|-----BEGIN")
"""What has a form of its own is as long as this, a private key, or in an address."""
_NAMED = compiled(r"(?i)pass|pwd|secret|key|token|credential|wort|contrase")
"""Before what has none stands one of these."""
_PEM = Pattern(r"(?r)-----BEGIN")
_PEM_END = Pattern(r"-----END [A-Z0-9 ]{3,40}-----")


class Secrets:
    """Finds them."""

    def __init__(self) -> None:
        self._forms = _forms()

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on; a known form counts before a guess by what stands before it."""
        left = max(0, start - NAME_REACH)
        is_long = _LONG.search(text, start) is not None or "://" in text[left:]
        is_named = _NAMED.search(text, left) is not None
        found = []
        for form in self._forms if is_long or is_named else ():
            is_guess = form.kind == "SECRET_VALUE"
            if not (is_named if is_guess else is_long):
                continue
            for match in form.pattern.matches(text, left if is_guess else start):
                begin, end = match.span("it") if is_guess else match.span()
                while is_guess and end > begin and text[end - 1] in ".!?:":
                    end -= 1
                if begin >= start and form.is_one(text[begin:end]):
                    found.append(Finding(begin, end, form.kind, f"[{form.kind}]"))
        return settled(found)

    def open_from(self, text: str, start: int) -> int:
        """The last word, or a private key whose end has not come."""
        opened = word_start(text, start, REACH)
        begun = _PEM.search(text, max(start, len(text) - KEY_REACH))
        if begun is not None and _PEM_END.search(text, begun.start()) is None:
            opened = min(opened, begun.start())
        return opened


def _forms() -> tuple[_Form, ...]:
    """What is looked for; of two that find the same the first counts."""
    return (
        _Form(
            "PRIVATE_KEY",
            Pattern(
                r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
                rf"(?:[^-]{{0,{KEY_REACH}}}(?:-----END [A-Z0-9 ]{{3,40}}-----)?)?"
            ),
        ),
        _form("JWT", r"ey[A-Za-z0-9_-]{10,1000}\.ey[A-Za-z0-9_-]{8,1600}\.[A-Za-z0-9_-]{16,1000}", _is_jwt),
        _form("AWS_ACCESS_KEY", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}", lambda text: "EXAMPLE" not in text),
        _form("GITHUB_TOKEN", r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
        _form("GITLAB_TOKEN", r"gl(?:pat|ptt|dt|rt|cbt|soat|ft)-[A-Za-z0-9_.-]{20,80}"),
        _form(
            "SLACK_TOKEN",
            r"xox[abeoprs]-(?:[A-Za-z0-9]{1,20}-){1,5}[A-Za-z0-9]{16,80}|xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{40,90}",
        ),
        _Form(
            "SLACK_WEBHOOK",
            Pattern(r"https://hooks\.slack\.com/(?:services|workflows)/T[A-Z0-9]{6,12}/[A-Za-z0-9/]{16,60}"),
        ),
        _Form(
            "DISCORD_WEBHOOK",
            Pattern(r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,80}"),
        ),
        _form("STRIPE_KEY", r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{20,200}|whsec_[A-Za-z0-9+/=]{24,90}"),
        _form("GOOGLE_KEY", r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{30,400}"),
        _form("SERIN_KEY", r"sk-serin-[A-Za-z0-9]{40}"),
        _form("ANTHROPIC_KEY", r"sk-ant-(?:api|admin|sid)\d{2}-[A-Za-z0-9_-]{32,120}"),
        _form("OPENAI_KEY", r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{40,200}|sk-[A-Za-z0-9]{32,64}"),
        _form("HUGGINGFACE_TOKEN", r"hf_[A-Za-z0-9]{30,40}"),
        _form("NPM_TOKEN", r"npm_[A-Za-z0-9]{36}"),
        _form("PYPI_TOKEN", r"pypi-AgE[A-Za-z0-9_-]{50,300}"),
        _form("SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
        _form("TWILIO_KEY", r"(?:SK|AC)[0-9a-f]{32}"),
        _form("TELEGRAM_TOKEN", r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),
        _form("SHOPIFY_TOKEN", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
        _form("DIGITALOCEAN_TOKEN", r"do[opr]_v1_[a-f0-9]{64}"),
        _form("DATABRICKS_TOKEN", r"dapi[a-f0-9]{32}(?:-\d)?"),
        _form("DOCKER_TOKEN", r"dckr_pat_[A-Za-z0-9_-]{27}"),
        _form("GRAFANA_TOKEN", r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}"),
        _form("VAULT_TOKEN", r"hv[sbr]\.[A-Za-z0-9_-]{24,200}"),
        _form(
            "AZURE_KEY", r"(?<=AccountKey=|SharedAccessKey=)[A-Za-z0-9+/]{43}={0,2}|(?<=AccountKey=)[A-Za-z0-9+/]{86}=="
        ),
        _form("AGE_KEY", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
        _Form(
            "PASSWORD_IN_URL",
            Pattern(r"(?<=[a-z0-9+]://[^\s/:@'\"<>]{1,64}:)[^\s/@'\"<>]{3,128}(?=@[A-Za-z0-9.\[-])"),
            _is_password,
        ),
        _Form(
            "BEARER_TOKEN",
            Pattern(
                r"(?i)(?<=authorization['\"]?\]?\s{0,2}[:=]\s{0,2}['\"]?(?:bearer|basic|token)\s{1,2})[A-Za-z0-9+/=_.~-]{16,1024}"
            ),
            _is_mixed,
        ),
        _Form(
            "SECRET_VALUE",
            Pattern(
                rf"(?i)(?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,24}}[_.-]){{0,3}}(?:{_WORDS})['\"`]?\]?\s{{0,3}}"
                r"(?:=>|:=|==?|:|\bis|\bist|\bes|\best)\s{0,3}[\"'`]?(?P<it>[^\s\"'`,;<>(){}]{8,256})"
            ),
            _is_random,
        ),
    )


def _entropy(text: str) -> float:
    """Bits a character (Shannon 1948)."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
