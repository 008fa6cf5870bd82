"""Texts with secrets, and texts with what only looks like one. Tuning and held-out share no template.

``{KIND}`` stands for a secret of that kind, ``{?name}`` for something harmless.
"""

import base64
import json
import string
import uuid
from random import Random

from values import DOMAINS, FIRST, digits, letters

_WORD = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_URL = _WORD + "_-"


def _jwt(rng: Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")

    claims = {"sub": digits(rng, 10), "name": rng.choice(FIRST), "iat": 1700000000 + rng.randrange(10**6)}
    return f"{part({'alg': rng.choice(['HS256', 'RS256']), 'typ': 'JWT'})}.{part(claims)}.{letters(rng, 43, _URL)}"


def _pem(rng: Random) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    body = "\n".join(letters(rng, 64, _WORD + "+/") for _ in range(rng.choice([4, 8, 12])))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n{letters(rng, 22, _WORD)}==\n-----END {kind}PRIVATE KEY-----"


def _password(rng: Random) -> str:
    return rng.choice(
        [letters(rng, 12, _WORD + "!#%&*+-_?") + digits(rng, 1), letters(rng, 20, _WORD),
         rng.choice(["Winter", "Falcon", "Rocket", "Marble"]) + digits(rng, 4) + rng.choice("!?#") + letters(rng, 2, _WORD),
         letters(rng, 32, _HEX), letters(rng, 16, _URL)]
    )  # fmt: skip


SECRETS = {
    "JWT": _jwt,
    "PRIVATE_KEY": _pem,
    "AWS_ACCESS_KEY": lambda rng: rng.choice(["AKIA", "ASIA"]) + letters(rng, 16, string.ascii_uppercase + "234567"),
    "GITHUB_TOKEN": lambda rng: rng.choice([rng.choice(["ghp_", "gho_", "ghs_"]) + letters(rng, 36, _WORD),
                                            f"github_pat_{letters(rng, 22, _WORD)}_{letters(rng, 59, _WORD)}"]),
    "GITLAB_TOKEN": lambda rng: "glpat-" + letters(rng, 20, _WORD),
    "SLACK_TOKEN": lambda rng: f"xoxb-{digits(rng, 12)}-{digits(rng, 12)}-{letters(rng, 24, _WORD)}",
    "SLACK_WEBHOOK": lambda rng: "https://hooks.slack.com/services/"
    f"T{letters(rng, 8, _WORD).upper()}/B{letters(rng, 8, _WORD).upper()}/{letters(rng, 24, _WORD)}",
    "STRIPE_KEY": lambda rng: rng.choice(["sk_live_", "rk_live_", "sk_test_"]) + letters(rng, rng.choice([24, 99]), _WORD),
    "GOOGLE_KEY": lambda rng: "AIza" + letters(rng, 35, _URL),
    "OPENAI_KEY": lambda rng: rng.choice(["sk-proj-" + letters(rng, 48, _URL), "sk-" + letters(rng, 48, _WORD)]),
    "ANTHROPIC_KEY": lambda rng: f"sk-ant-api03-{letters(rng, 93, _WORD)}AA",
    "SERIN_KEY": lambda rng: "sk-serin-" + letters(rng, 40, _WORD),
    "HUGGINGFACE_TOKEN": lambda rng: "hf_" + letters(rng, 34, _WORD),
    "NPM_TOKEN": lambda rng: "npm_" + letters(rng, 36, _WORD),
    "PYPI_TOKEN": lambda rng: "pypi-AgEIcHlwaS5vcmc" + letters(rng, 120, _URL),
    "SENDGRID_KEY": lambda rng: f"SG.{letters(rng, 22, _URL)}.{letters(rng, 43, _URL)}",
    "TWILIO_KEY": lambda rng: "SK" + letters(rng, 32, _HEX),
    "TELEGRAM_TOKEN": lambda rng: f"{digits(rng, 10)}:AA{letters(rng, 33, _URL)}",
    "SHOPIFY_TOKEN": lambda rng: "shpat_" + letters(rng, 32, _HEX),
    "DIGITALOCEAN_TOKEN": lambda rng: "dop_v1_" + letters(rng, 64, _HEX),
    "VAULT_TOKEN": lambda rng: "hvs." + letters(rng, 90, _URL),
    "GRAFANA_TOKEN": lambda rng: f"glsa_{letters(rng, 32, _WORD)}_{letters(rng, 8, _HEX)}",
    "AZURE_KEY": lambda rng: letters(rng, 86, _WORD + "+/") + "==",
    "SECRET_VALUE": _password,
    "PASSWORD_IN_URL": lambda rng: letters(rng, rng.choice([8, 12, 16]), _WORD + "!-_"),
    "BEARER_TOKEN": lambda rng: letters(rng, rng.choice([24, 40, 64]), _WORD),
}  # fmt: skip
KNOWN = [kind for kind in SECRETS if kind not in ("SECRET_VALUE", "PASSWORD_IN_URL", "BEARER_TOKEN", "AZURE_KEY")]
"""Those with a form of their own; ``{KNOWN}`` stands for any of them."""
HARMLESS = {
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "hash": lambda rng: letters(rng, rng.choice([32, 40, 64]), _HEX),
    "short": lambda rng: letters(rng, 7, _HEX),
    "b64": lambda rng: base64.b64encode(f"hello {rng.choice(FIRST)}, this is number {digits(rng, 6)}".encode()).decode(),
    "domain": lambda rng: rng.choice(DOMAINS),
    "first": lambda rng: rng.choice(FIRST).lower(),
    "num": lambda rng: digits(rng, 8),
    "id": lambda rng: rng.choice(["cus_", "pi_", "in_", "evt_", "req_"]) + letters(rng, 14, _WORD),
    "env": lambda rng: rng.choice(["${API_KEY}", "$DB_PASSWORD", "<your-token>", "YOUR_API_KEY", "{{ secret }}", "********",
                                   "xxxxxxxxxxxx", "changeme", "os.environ['TOKEN']", "process.env.SECRET", "[REDACTED]"]),
}  # fmt: skip

TUNING_WITH = """
export TOKEN={KNOWN}
Here is my key: {KNOWN}
"api_key": "{KNOWN}"
password = "{SECRET_VALUE}"
DB_PASSWORD={SECRET_VALUE}
Authorization: Bearer {BEARER_TOKEN}
postgres://app:{PASSWORD_IN_URL}@db.{?domain}:5432/app
AccountKey={AZURE_KEY};EndpointSuffix=core.windows.net
my password is {SECRET_VALUE}
{PRIVATE_KEY}
client_secret: {SECRET_VALUE}
Why does {KNOWN} return 401?
config["db_password"] = "{SECRET_VALUE}"
headers['authorization'] = 'token {BEARER_TOKEN}'
"""
TUNING_WITHOUT = """
commit {?hash} fixes it
request id {?uuid}
password = {?env}
api_key: {?env}
How do I rotate an API key safely?
The token limit is 4096.
git checkout {?short}
customer {?id} was charged
Forgot your password? Click here.
data:text/plain;base64,{?b64}
Authorization: Bearer {?env}
https://{?domain}/reset?user={?first}
The secret to good bread is patience.
const token = await getToken();
key: value
-----BEGIN CERTIFICATE-----
-----BEGIN PUBLIC KEY-----
"""
HELD_OUT_WITH = """
The deploy failed, log says: invalid credential {KNOWN} (expired?)
# .env\\nPORT=8080\\nSERVICE_TOKEN={KNOWN}\\nDEBUG=0
client = Client("{KNOWN}")  # TODO move to vault
I accidentally pushed {KNOWN} to the repo, what now?
{{"provider": "x", "credentials": {{"key": "{KNOWN}"}}}}
curl https://api.{?domain}/v1/models -H "x-api-key: {KNOWN}"
My bot uses {KNOWN} and it stopped answering on Monday.
- run: ./upload.sh --token {KNOWN}
Can you check whether `{KNOWN}` still works?
Use this for staging: {KNOWN}, and this for prod: {KNOWN}.
spring.datasource.password={SECRET_VALUE}
The wifi password is {SECRET_VALUE} for guests.
login: {?first}\\npassword: {SECRET_VALUE}
os.environ["SECRET_KEY"] = "{SECRET_VALUE}"
ENCRYPTION_KEY: '{SECRET_VALUE}'
<add key="ApiToken" /> and then api_token => '{SECRET_VALUE}'
Das Passwort: {SECRET_VALUE}
let apiKey = "{SECRET_VALUE}";
webhook_secret={SECRET_VALUE}
aws_secret_access_key = {SECRET_VALUE}
curl -H 'Authorization: Bearer {BEARER_TOKEN}' https://{?domain}/me
headers["Authorization"] = "Basic {BEARER_TOKEN}"
mongodb+srv://{?first}:{PASSWORD_IN_URL}@cluster0.{?domain}/test
redis://default:{PASSWORD_IN_URL}@cache.{?domain}:6379/0
git clone https://{?first}:{PASSWORD_IN_URL}@git.{?domain}/team/app.git
amqp://svc:{PASSWORD_IN_URL}@10.0.0.5/%2f
DefaultEndpointsProtocol=https;AccountName=store;AccountKey={AZURE_KEY};EndpointSuffix=core.windows.net
Here is the key file:\\n{PRIVATE_KEY}\\nPlease keep it safe.
ssh -i <(echo "{PRIVATE_KEY}") host
"""
HELD_OUT_WITHOUT = """
Revert to {?hash} if the canary looks bad.
trace_id={?uuid} span_id={?short}
docker pull registry.{?domain}/app@sha256:{?hash}
DATABASE_PASSWORD: {?env}
token = {?env}  # filled in by CI
headers = {{"Authorization": "Bearer {?env}"}}
Our password policy: at least 12 characters, no reuse.
The tokenizer splits words into tokens; each token has an id.
What is the difference between a public and a private key?
cherry-pick {?short} and {?short} onto the release branch
invoice {?id} for customer {?id}
Where do I find my API key in the console?
<img src="data:image/png;base64,{?b64}">
postgres://localhost:5432/{?first}
https://{?first}@{?domain}/inbox
Key findings: revenue grew, churn fell, secret sauce unchanged.
let token = tokens.next().unwrap();
secretKeyRef: name: db-credentials, key: password
-----BEGIN CERTIFICATE REQUEST-----
-----BEGIN PGP SIGNED MESSAGE-----
ETag: "{?hash}"
"integrity": "sha512-{?b64}"
session started for {?first} at 10:45, id {?num}
The secret ingredient is cinnamon. The password was "please".
pass: true, fail: false, skipped: 12
def check_password(password: str) -> bool: ...
token: str | None = None
api_key=args.api_key, timeout=30
Type your password and press enter.
access_token is required but was not provided
primary key (id), foreign key (customer_id)
Bearer bonds were abolished in 1982.
basic authentication is disabled on this server
MD5 ({?first}.txt) = {?hash}
checksum: {?hash}
AKIA is the prefix of long-term keys; ASIA of temporary ones.
Tokens that begin with ghp_ are personal access tokens.
sk_live_... and sk_test_... differ by account mode
private_key_path: /etc/ssl/private/server.key
license key valid until 2027
monkey = donkey; turkey: roasted
Press any key: continue
"""
