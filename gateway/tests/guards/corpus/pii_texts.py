"""Texts with personal data, and texts with what only looks like it. Tuning and held-out share no template.

``{KIND}`` stands for a value of that kind; ``{?name}`` for something harmless, made by `HARMLESS`.
"""

import string
import uuid
from random import Random

from values import FIRST, LAST, card, digits, grouped, letters, luhn_digit


def _isbn13(rng: Random) -> str:
    body = rng.choice(["978", "979"]) + digits(rng, 9)
    check = -sum(int(d) * (1 if at % 2 == 0 else 3) for at, d in enumerate(body)) % 10
    return grouped(body + str(check), (3, 1, 4, 4, 1), rng.choice(["-", ""]))


def _bad_card(rng: Random) -> str:
    """Sixteen digits like a card's, with a wrong last one."""
    number = card(rng)
    return number[:-1] + str((int(number[-1]) + rng.randrange(1, 10)) % 10)


def _imei(rng: Random) -> str:
    body = "35" + digits(rng, 12)
    return body + luhn_digit(body)


HARMLESS = {
    "order": lambda rng: rng.choice(["ORD-", "PO", "#", "SO-", "No. "]) + digits(rng, rng.choice([6, 7, 8, 10, 12])),
    "order12": lambda rng: digits(rng, 12),
    "long": lambda rng: digits(rng, rng.choice([14, 17, 19, 20])),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "isbn": _isbn13,
    "hash": lambda rng: letters(rng, rng.choice([7, 40, 64]), "0123456789abcdef"),
    "version": lambda rng: ".".join(str(rng.randrange(30)) for _ in range(rng.choice([3, 4]))),
    "date": lambda rng: rng.choice(["{2}-{1}-{0}", "{0}.{1}.{2}", "{1}/{0}/{2}", "{2}{1}{0}"]).format(
        f"{rng.randrange(1, 29):02d}", f"{rng.randrange(1, 13):02d}", rng.randrange(1990, 2030)
    ),
    "time": lambda rng: f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}",
    "epoch": lambda rng: rng.choice(["1", "16", "17"])[:1] + rng.choice("67") + digits(rng, rng.choice([8, 11])),
    "amount": lambda rng: f"{rng.randrange(1, 999)},{digits(rng, 3)}.{digits(rng, 2)}",
    "count": lambda rng: str(rng.randrange(10, 10**7)),
    "private_ip": lambda rng: rng.choice(["10.{}.{}.{}", "192.168.{}.{}", "127.0.0.{}", "172.16.{}.{}"]).format(
        *(rng.randrange(1, 250) for _ in range(3))
    ),
    "tracking": lambda rng: rng.choice(["1Z" + letters(rng, 6, string.ascii_uppercase + "0123456789") + digits(rng, 10),
                                        letters(rng, 2) + digits(rng, 9) + "CN"]),
    "badcard": _bad_card,
    "imei": _imei,
    "coords": lambda rng: f"{rng.randrange(-89, 89)}.{digits(rng, 6)}, {rng.randrange(-179, 179)}.{digits(rng, 6)}",
    "part": lambda rng: letters(rng, 3) + "-" + digits(rng, 4) + "-" + letters(rng, 1) + digits(rng, 1),
    "cve": lambda rng: f"CVE-20{rng.randrange(10, 27)}-{digits(rng, 5)}",
    "cas": lambda rng: f"{digits(rng, 4)}-{digits(rng, 2)}-{digits(rng, 1)}",
    "doi": lambda rng: f"10.{digits(rng, 4)}/{letters(rng, 5).lower()}.{digits(rng, 7)}",
    "ratio": lambda rng: f"{rng.randrange(1, 99)}-{rng.randrange(1, 99)}-{rng.randrange(1, 99)}",
    "float": lambda rng: f"{rng.randrange(10)}.{digits(rng, 12)}",
    "color": lambda rng: "#" + letters(rng, 6, "0123456789abcdef"),
    "mac": lambda rng: ":".join(letters(rng, 2, "0123456789abcdef") for _ in range(6)),
    "first": lambda rng: rng.choice(FIRST),
    "last": lambda rng: rng.choice(LAST),
}  # fmt: skip

TUNING_WITH = """
Please update my contact details: {EMAIL_ADDRESS} and {PHONE_NUMBER}.
My card is {CREDIT_CARD}, it expires next month.
I was charged twice on card {CREDIT_CARD}. Order {?order}.
Send the refund to {IBAN_CODE}.
You can reach {?first} at {PHONE_NUMBER} during office hours.
Login attempts came from {IP_ADDRESS} at {?time}.
SSN: {US_SSN}
The patient's social security number is {US_SSN}, admitted {?date}.
ITIN {US_ITIN} was rejected by the form.
Passport number {US_PASSPORT} issued in 2019.
Driver's license {US_DRIVER_LICENSE} on file.
Wire it to account number {US_BANK_NUMBER}, thanks.
Medicare beneficiary {US_MBI} asks about coverage.
NHS number {UK_NHS}
National insurance: {UK_NINO}
His passport ({UK_PASSPORT}) was stolen.
Steuer-ID: {DE_TAX_ID}
Meine Sozialversicherungsnummer lautet {DE_SOCIAL_SECURITY}.
DNI {ES_NIF}, gracias.
Mi NIE es {ES_NIE} y mi correo {EMAIL_ADDRESS}.
Codice fiscale: {IT_FISCAL_CODE}
PESEL: {PL_PESEL}
Henkilötunnus {FI_PERSONAL_IDENTITY_CODE}
Personnummer {SE_PERSONNUMMER}
Aadhaar {IN_AADHAAR} and PAN {IN_PAN}.
My TFN is {AU_TFN}
Medicare card {AU_MEDICARE}
SIN {CA_SIN} belongs to {?first} {?last}.
NRIC {SG_NRIC_FIN}
주민등록번호는 {KR_RRN} 입니다.
TC kimlik no {TR_NATIONAL_ID}
ID number {ZA_ID_NUMBER}
Donate to {CRYPTO}
{{"email": "{EMAIL_ADDRESS}", "phone": "{PHONE_NUMBER}"}}
name,email\\n{?first} {?last},{EMAIL_ADDRESS}
From: {?first} <{EMAIL_ADDRESS}>\\nTo: support\\nSubject: order {?order}
Call me: {PHONE_NUMBER}
我的邮箱是{EMAIL_ADDRESS}，电话{PHONE_NUMBER}。
"""

TUNING_WITHOUT = """
Your order {?order} has shipped with tracking {?tracking}.
The build {?version} failed at commit {?hash}.
See ISBN {?isbn} for the details.
id = "{?uuid}"
The invoice total is ${?amount}, due on {?date}.
Connected to {?private_ip} on port 8080.
Timestamp {?epoch} means {?date} {?time}.
Ticket {?order} was closed on {?date}.
The score was {?ratio} after the break.
Use @property on the getter, not @staticmethod.
Clone git@github.com:acme/tools.git and run make.
The icon is at assets/logo@2x.png.
Install left-pad@1.3.0 with npm.
{?cve} affects versions before {?version}.
Part {?part} replaces part {?part}.
Population: {?count}. Area: {?count} km2.
pi is about 3.14159265358979, e is about 2.71828182845904.
The card number {?badcard} failed the checksum.
Set background: {?color}; on the button.
Run `sleep 3600 && kill -9 12345` to stop it.
SELECT * FROM orders WHERE id = {?order12};
The device's MAC is {?mac}.
Position {?coords} was logged at {?time}.
DOI {?doi} explains the method.
Reference {?long} was not found.
Room 4.12, floor 3, building 27.
Section 8.3.1.2 of the manual says otherwise.
Firmware version {?version} is required.
IMEI {?imei} is not locked.
CAS {?cas} is water.
"""

HELD_OUT_WITH = """
Hi team, could you resend the contract to {EMAIL_ADDRESS}? My old inbox is full.
{?first} here. Text me on {PHONE_NUMBER} when the courier arrives, I will be in the garden.
I typed {CREDIT_CARD} into the wrong field, please delete it from the chat.
Payment method: Visa {CREDIT_CARD} (exp 09/29), billing zip 94110.
The two cards were {CREDIT_CARD} and {CREDIT_CARD}; only the second one worked.
Bitte überweisen Sie den Betrag auf das Konto {IBAN_CODE} bis Freitag.
Merci de virer 350 EUR sur {IBAN_CODE}, à l'ordre de {?first} {?last}.
Rechnung {?order}: Bankverbindung {IBAN_CODE}, Verwendungszweck {?order}.
{?time} WARN auth: failed password for root from {IP_ADDRESS} port 52213 ssh2
The abuse report names {IP_ADDRESS} as the source of the scan.
x-forwarded-for: {IP_ADDRESS}
Applicant {?first} {?last}, social security {US_SSN}, born {?date}.
On the W-2 the ssn reads {US_SSN} but payroll has another one.
{{"applicant": {{"name": "{?first} {?last}", "ssn": "{US_SSN}", "email": "{EMAIL_ADDRESS}"}}}}
As a nonresident alien I file under {US_ITIN}.
My U.S. passport, {US_PASSPORT}, expires in June.
He handed the officer his driver license {US_DRIVER_LICENSE} and the registration.
Direct deposit goes to checking account {US_BANK_NUMBER} at the credit union.
Beneficiary MBI {US_MBI}: claim {?order} denied on {?date}.
The referral letter for NHS no {UK_NHS} was faxed on {?date}.
Payslip shows NI number {UK_NINO} and tax code 1257L.
British passport {UK_PASSPORT}, surname {?last}.
Das Finanzamt schreibt an die steuerliche Identifikationsnummer {DE_TAX_ID}.
Rentenversicherungsnummer {DE_SOCIAL_SECURITY}, geboren am {?date}.
Adjunto copia del documento nacional de identidad {ES_NIF} de {?first} {?last}.
La titular, con NIE {ES_NIE}, firma el contrato el {?date}.
Il sottoscritto {?first} {?last}, C.F. {IT_FISCAL_CODE}, dichiara quanto segue.
Pacjent {?first} {?last}, nr PESEL {PL_PESEL}, zapisany na {?date}.
Asiakkaan hetu on {FI_PERSONAL_IDENTITY_CODE} ja puhelin {PHONE_NUMBER}.
Kunden med personnummer {SE_PERSONNUMMER} vill säga upp avtalet.
KYC pending: aadhaar no. {IN_AADHAAR}, name {?first} {?last}.
Kindly quote PAN {IN_PAN} on the invoice dated {?date}.
The ATO letter mentions tax file number {AU_TFN}.
Patient's medicare number: {AU_MEDICARE}, reference 2.
Employee {?last}: social insurance number {CA_SIN}, start date {?date}.
Visitor log: {?first} {?last}, {SG_NRIC_FIN}, block 7.
고객 이름 {?first}, 주민번호 {KR_RRN}, 연락처 {PHONE_NUMBER}
Müşteri {?first} {?last}, kimlik numarası {TR_NATIONAL_ID}, kayıt {?date}.
Tenant: {?first} {?last}, RSA ID {ZA_ID_NUMBER}, unit 14B.
Tip jar (BTC): {CRYPTO}
To: "{?last}, {?first}" <{EMAIL_ADDRESS}>; cc: {EMAIL_ADDRESS}
- name: {?first}\\n  mail: {EMAIL_ADDRESS}\\n  tel: {PHONE_NUMBER}
INSERT INTO customers VALUES ({?count}, '{?first}', '{EMAIL_ADDRESS}', '{PHONE_NUMBER}');
id;vorname;email;iban\\n{?count};{?first};{EMAIL_ADDRESS};{IBAN_CODE}
Summarise this: "{?first} called from {PHONE_NUMBER} about invoice {?order} and left {EMAIL_ADDRESS} as contact."
Translate to French: my telephone number is {PHONE_NUMBER} and I live in Leeds.
const user = {{ id: "{?uuid}", email: "{EMAIL_ADDRESS}", lastIp: "{IP_ADDRESS}" }};
邮件请发到 {EMAIL_ADDRESS} ，或者打电话 {PHONE_NUMBER} 。
カード番号は{CREDIT_CARD}です。領収書は{EMAIL_ADDRESS}へ送ってください。
Мой телефон {PHONE_NUMBER}, почта {EMAIL_ADDRESS}, спасибо!
Call centre script: "Can you confirm the card ending, {CREDIT_CARD}, and the phone {PHONE_NUMBER}?"
Emergency contact: {?first} {?last} (spouse), {PHONE_NUMBER}
{?date} {?time} INFO mailer: delivered to={EMAIL_ADDRESS} relay=mx1 status=sent
Please forward {EMAIL_ADDRESS}'s ticket {?order} to the billing team.
Signature:\\n{?first} {?last}\\nSenior Buyer\\nPhone: {PHONE_NUMBER}\\n{EMAIL_ADDRESS}
curl -d 'email={EMAIL_ADDRESS}&amount=20' https://pay.example.com/v1/charge
The refund for {?order} went to {IBAN_CODE} instead of {IBAN_CODE}.
Whistleblower tip: look at account {IBAN_CODE} and the mailbox {EMAIL_ADDRESS}.
Set the reply-to header to {EMAIL_ADDRESS} and retry in 30 seconds.
Our guest's passport no. {US_PASSPORT} must be scanned at check-in.
"""

HELD_OUT_WITHOUT = """
We received {?count} sign-ups last week, {?count} of them from the newsletter.
Parcel {?tracking} is at the depot; reference {?order}.
Release notes for {?version}: fixed a crash when the queue held more than {?count} items.
git revert {?hash} brought latency back to normal.
The textbook ({?isbn}) is out of print, try {?isbn} instead.
{{"id": "{?uuid}", "parent": "{?uuid}", "size": {?count}}}
Budget line 4: {?amount} USD; line 5: {?amount} USD.
dial tcp {?private_ip}:5432: connect: connection refused
created_at={?epoch} updated_at={?epoch} shard=17
Between {?date} and {?date} the sensor was offline.
Final standings {?ratio}, {?ratio}, {?ratio}.
def parse(x: float = {?float}) -> int: ...
Mention @{?first} in the thread and add the #launch tag.
npm i @angular/core@17.3.12 --save-exact
ssh://git@gitlab.com/team/service.git is the new remote.
Export the sprite as menu-icon@3x.webp please.
Patch {?cve} and {?cve} before {?date}.
Replace bearing {?part} (torque {?count} Nm) with {?part}.
In 1999 there were 1,234,567 of them; in 2024 there were 7,654,321.
The test used the invalid number {?badcard} on purpose.
body {{ color: {?color}; margin: 0 auto; z-index: 9999; }}
for i in range(1000000, 9999999, 12345): print(i)
UPDATE stock SET qty = {?count} WHERE sku = '{?part}' AND lot = {?order12};
arp -a shows {?mac} on interface 3
GPS fix at {?coords}, altitude 1234.56 m.
Cite as https://doi.org/{?doi} (accessed {?date}).
Transaction reference {?long} timed out after 30000 ms.
Meet in room 3.141 at 14:30, dial 7-2 for the door.
As section 12.4.1.7 states, see also section 9.2.3.1.
Upgrade firmware from release {?version} to release {?version}.
Handset IMEI {?imei}, colour black, 256 GB.
Solvent {?cas} was added to {?cas} under nitrogen.
What is 123456789 times 987654321?
Write a poem about the number 42 and the year 2001.
Sort these: 903, 12, 88, 4051, 77, 6300, 15, 29, 1024, 65535.
0x7fffffffffff, 0b10101010, 1e-10 and 6.02214076e23 are all numbers.
The train 7:15, 8:45, 9:05, 10:20 and 11:40 stop at platform 4.
Phone number formats differ: explain the E.164 standard to me.
How do I validate an e-mail address with a regular expression?
Why does my credit card form reject spaces between digits?
Explain how the IBAN checksum works, with mod 97.
My social security benefits question: when can I retire?
Chapter 10 verse 4-5, psalm 119:105, pages 203-210.
Lottery numbers: 04 11 23 35 42 49, bonus 07.
Ingredients: 250 g flour, 125 ml milk, 2 eggs, bake 25 min at 180 C.
Kernel 6.8.0-45-generic, driver 550.107.02, CUDA 12.4.131.
Serial {?part}-{?count} and batch {?order} were recalled.
sha256:{?hash} matched, size {?count} bytes.
nonce={?float}&ts={?epoch}&v={?version}
Flight LH1234 departs 09:55 from gate B42, seat 17C.
2024-11-05T13:37:42.123Z request_id={?uuid} status=200 bytes={?count}
The matrix is [[1, 2, 3], [4, 5, 6], [7, 8, 9]] and its trace is 15.
Draw 12 cards, discard 5, keep 7; the deck has 52.
Model X-1000-2000 weighs 3.5 kg and costs 1.299,00 EUR.
Article 5(1)(b) and recital 39 of Regulation (EU) 2016/679 apply.
Grid reference TQ 300 804, sheet 176, scale 1:50 000.
Your one-time code is {?count}; it expires in 5 minutes.
RFC 5321 and RFC 5322 define it; see also RFC 6531 section 3.3.
The ratio of 22/7 to 355/113 is 1.000402.
ticket={?order} prio=2 sla=4h owner=queue-7
"""
