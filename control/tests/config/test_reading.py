"""A bad `serin.yaml` is refused as a whole, with line, key and what is accepted."""

import json
from importlib import resources

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_control.config import ConfigInvalid, MeshConfig, Problem, diff, json_schema, load_config, parse_config

GOOD = """\
models:
  small:
    versions:
      v1: {path: models/v1, weight: 90, workers: 2}
      v2:
        path: models/v2
        weight: 10
    aliases: [gpt-demo]
    precision: float32
    default_max_tokens: 128
  other:
    path: org/other
limits:
  requests_per_minute: 60
gateway: {port: 0}
"""


ROUTED = (
    GOOD
    + """\
cascades:
  smart:
    first: other
    then: small
    escalate_when: {mean_logprob_below: -0.1, min_logprob_below: -2, schema_fails: true, prompt_matches: ["(?i)why"]}
tenants:
  acme:
    aliases: {chat: smart, small: other, other: small}
    fallbacks: false
    projects:
      web: {aliases: {best: chat}, fallbacks: true}
"""
)
TWO = "models:\n  a: {path: x, aliases: [z]}\n  b: {path: y}\n"


def problems(text: str) -> list[str]:
    """Lines that a text is refused with."""
    with pytest.raises(ConfigInvalid) as refused:
        parse_config(text, "serin.yaml")
    return str(refused.value).splitlines()


def test_good_file_says_everything_about_its_versions():
    """A version inherits what its model says, keeps what it says itself, and weights are decided."""
    config = parse_config(GOOD)
    v1, v2 = config.models["small"].releases()
    assert (v1.version, v1.weight, v1.workers, v1.tokenizers) == ("v1", 90, 2, 1)
    assert (v2.version, v2.weight, v2.workers, v2.engine) == ("v2", 10, 1, {"precision": "float32"})
    (only,) = config.models["other"].releases()
    assert (only.version, only.path, only.weight) == ("v1", "org/other", 100)
    assert config.limits.requests_per_minute == 60
    assert config.gateway.grpc_port == 9080


def test_names_lead_where_they_are_told_to():
    """Whole numbers are numbers too; an organization may swap two models."""
    config = parse_config(ROUTED.replace("aliases: [gpt-demo]", "aliases: [gpt-demo]\n    fallback: [other]"))
    assert config.models["small"].fallback == ["other"]
    assert config.cascades["smart"].escalate_when.min_logprob_below == -2.0
    assert config.tenants["acme"].projects["web"].aliases == {"best": "chat"}
    jsonschema.validate(yaml.safe_load(ROUTED), json_schema())
    assert "+ cascades.smart.first: other" in diff(parse_config(GOOD), config)


def test_guards_have_defaults_that_do_nothing():
    """What is not named is not looked for; a policy says only what it wants."""
    assert parse_config(GOOD).guards.policies == {}
    text = GOOD + "guards: {policies: {p: {pii: {input: mask, countries: [us]}}}, projects: {web: p}}\n"
    policy = parse_config(text).guards.policies["p"]
    assert (policy.pii.input, policy.pii.output, policy.secrets.input) == ("mask", "none", "none")
    assert "+ guards.policies.p.pii.countries: us" in diff(parse_config(GOOD), parse_config(text))


def test_without_weights_the_last_version_has_everything():
    """The newest declared version gets all traffic when nobody says otherwise."""
    config = parse_config("models: {a: {versions: {v1: {path: x}, v2: {path: y}}}}")
    assert [release.weight for release in config.models["a"].releases()] == [0, 100]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models:\n  a:\n    path: x\n    worker: 1\n",
            "serin.yaml:4: models.a.worker: unknown key (did you mean 'workers'?); accepted: aliases,",
        ),
        (
            "models:\n  a:\n    path: x\n    workers: two\n",
            "serin.yaml:4: models.a.workers: 'two' is not accepted; accepted: an integer 0..256",
        ),
        (
            "models:\n  a:\n    path: x\n    workers: 1.0\n",
            "serin.yaml:4: models.a.workers: 1.0 is not accepted; accepted: an integer 0..256",
        ),
        (
            "models:\n  a:\n    path: x\n    precision: int3\n",
            "serin.yaml:4: models.a.precision: 'int3' is not accepted; accepted: one of auto, float32, bfloat16,",
        ),
        (
            "models:\n  a:\n    path: x\n    path: y\n",
            "serin.yaml:4: models.a.path: duplicate key, first on line 3; accepted: each key once",
        ),
        (
            "models:\n  a: {path: x}\ngateway:\n  port: 70000\n",
            "serin.yaml:4: gateway.port: 70000 is not accepted; accepted: an integer 0..65535",
        ),
        (
            "models:\n  a: {path: x}\ngateway:\n  allow_anonymous: 1\n",
            "serin.yaml:4: gateway.allow_anonymous: 1 is not accepted; accepted: true or false",
        ),
        (
            "models:\n  A: {path: x}\n",
            "serin.yaml:2: models.A: not a name; accepted: names of models: 1 to 64 of a-z 0-9 . _ -",
        ),
        ("models:\n  1: {path: x}\n", "serin.yaml:2: models: key '1' is read as int; accepted: text; quote it"),
        (
            "models:\n  a:\n    versions: {v1: {workers: 1}}\n",
            "serin.yaml:3: models.a.versions.v1.path: missing; accepted: a model folder",
        ),
        (
            "models:\n  a: {workers: 1}\n",
            "serin.yaml:2: models.a: neither 'path' nor 'versions'; accepted: one of the two",
        ),
        (
            "models:\n  a:\n    path: x\n    versions: {v1: {path: y}}\n",
            "serin.yaml:3: models.a.path: both 'path' and 'versions'",
        ),
        (
            "models:\n  a:\n    versions: {v1: {path: y, weight: 0}}\n",
            "serin.yaml:3: models.a.versions: every weight is 0",
        ),
        ("models:\n  a: {path: x, kv_blocks: 8, kv_cache_bytes: 1}\n", "serin.yaml:2: models.a.kv_blocks: both"),
        (
            "models:\n  a: {path: x, kv_blocks: 7}\n",
            "serin.yaml:2: models.a.kv_blocks: 7 blocks hold no sequence; accepted: 8",
        ),
        (
            "models:\n  a:\n    context_length: 512\n    versions:\n      v1: {path: x, kv_blocks: 31}\n",
            "serin.yaml:5: models.a.versions.v1.kv_blocks: 31 blocks hold no sequence; accepted: 32 or more, so that",
        ),
        (
            "models:\n  a: {path: x, kv_cache_bytes: 10}\n",
            "serin.yaml:2: models.a.kv_cache_bytes: 10 bytes hold no sequence; accepted: 0, or as many as hold a short",
        ),
        (
            "models:\n  a: {path: x, max_batched_tokens: 3}\n",
            "serin.yaml:2: models.a.max_batched_tokens: 3 tokens in a step for 64 sequences; accepted: "
            "'max_batched_tokens' of 64 or more",
        ),
        (
            "models:\n  a:\n    max_batched_tokens: 100\n    versions:\n      v1: {path: x, max_sequences: 101}\n",
            "serin.yaml:5: models.a.versions.v1.max_sequences: 100 tokens in a step for 101 sequences",
        ),
        (
            "models:\n  a: {path: x, max_sequences: 4097}\n",
            "serin.yaml:2: models.a.max_sequences: 4097 is not accepted; accepted: an integer 1..4096",
        ),
        (
            "models:\n  a: {path: x}\n  b: {path: y, aliases: [a]}\n",
            "serin.yaml:3: models.b.aliases.0: 'a' is already the name of model 'a'",
        ),
        (
            "models:\n  a: {path: x, aliases: [z]}\n  b: {path: y, aliases: [z]}\n",
            "serin.yaml:3: models.b.aliases.0: 'z' is already the name of an alias of 'a'",
        ),
        ("models:\n  a: {path: x}\nlimits:\n", "serin.yaml:3: limits: no value; accepted: a mapping with the keys"),
        (
            "models:\n  a: {path: x}\nguards:\n  policies:\n    p: {pii: {input: hide}}\n",
            "serin.yaml:5: guards.policies.p.pii.input: 'hide' is not accepted; accepted: one of none, count, mask",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies:\n    p: {pii: {input: mask, countries: [us, xx]}}\n",
            "serin.yaml:5: guards.policies.p.pii.countries.1: 'xx' is not accepted; accepted: one of au, ca, de",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies:\n    p: {spam: {input: mask}}\n",
            "serin.yaml:5: guards.policies.p.spam: unknown key; accepted: blocked, injection, pii, secrets, unicode",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies: {p: {}}\n  default: q\n",
            "serin.yaml:5: guards.default: no policy is named 'q'; accepted: one of 'guards.policies': p",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies: {p: {}}\n  keys:\n    key_1: p\n    key_2: q\n",
            "serin.yaml:7: guards.keys.key_2: no policy is named 'q'",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies:\n    p:\n      blocked: {output: mask}\n",
            "serin.yaml:6: guards.policies.p.blocked: no 'terms'; accepted: at least one term, or the action 'none'",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  keys: {'a b': p}\n",
            "serin.yaml:4: guards.keys.a b: not a name; accepted: public names of keys: key_..., as `serin key list`",
        ),
        (
            "models:\n  a: {path: x}\nguards:\n  policies: {P: {}}\n",
            "serin.yaml:4: guards.policies.P: not a name; accepted: names of policies: 1 to 64 of a-z 0-9 . _ -",
        ),
        (
            "models: {}\n",
            "serin.yaml:1: models: a mapping without entries; accepted: a mapping with at least one entry",
        ),
        ("limits: {}\n", "serin.yaml: models: missing; accepted: a mapping with at least one entry"),
        ("", "serin.yaml: empty; accepted: a mapping with the keys cache, cascades, currency, gateway, guards, limits"),
        ("- a\n", "serin.yaml: list instead of keys"),
        ("models: [\n", "serin.yaml:2: not YAML:"),
        ("a: &x 1\nb: *x\n", "serin.yaml:1: anchor or alias 'x'; accepted: each value written out"),
        ("models:\n  !!python/object/apply:os.system [id]\n", "serin.yaml:2: models: tag"),
        ("a: " + "[" * 5000, "serin.yaml:1: nested too deep"),
        ("a\x00b", "serin.yaml: not YAML:"),
        ("a: " + "9" * 5000, "serin.yaml:1: a: Exceeds the limit"),
        ("a: " + "x" * 1_048_576, "serin.yaml: 1048579 characters; accepted: at most 1048576"),
        (
            "models:\n  a: {path: x, fallback: [a]}\n  b: {path: y}\n",
            "serin.yaml:2: models.a.fallback.0: 'a' would fall back to itself; accepted: b",
        ),
        (
            "models:\n  a: {path: x, fallback: [c]}\n  b: {path: y}\n",
            "serin.yaml:2: models.a.fallback.0: no model is named 'c'; accepted: b",
        ),
        (
            "models:\n  a: {path: x, fallback: [b, b]}\n  b: {path: y}\n",
            "serin.yaml:2: models.a.fallback.1: 'b' is there",
        ),
        (
            TWO + "cascades:\n  a: {first: a, then: b, escalate_when: {hint: true}}\n",
            "serin.yaml:5: cascades.a: 'a' is al",
        ),
        (
            TWO + "cascades:\n  z: {first: a, then: b, escalate_when: {hint: true}}\n",
            "serin.yaml:5: cascades.z: 'z' is al",
        ),
        (
            TWO + "cascades:\n  s:\n    first: a\n    then: c\n    escalate_when: {hint: true}\n",
            "serin.yaml:7: cascades.s.then: 'c' is no model; accepted: a, b",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: b, escalate_when: {hint: true}}\n"
            "  t: {first: s, then: b, escalate_when: {hint: true}}\n",
            "serin.yaml:6: cascades.t.first: 's' is a cascade; accepted: a, b",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: a, escalate_when: {hint: true}}\n",
            "serin.yaml:5: cascades.s.then: 'a' is the first model too; accepted: another model",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: b, escalate_when: {}}\n",
            "serin.yaml:5: cascades.s.escalate_when: no rule: nothing would ever be escalated; accepted: at least",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: b, escalate_when: {mean_logprob_below: 0.1}}\n",
            "serin.yaml:5: cascades.s.escalate_when.mean_logprob_below: 0.1 is not accepted; accepted: a number from",
        ),
        (
            TWO + 'cascades:\n  s: {first: a, then: b, escalate_when: {prompt_matches: ["(a"]}}\n',
            "serin.yaml:5: cascades.s.escalate_when.prompt_matches.0: no regular expression: missing )",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: b, escalate_when: {classifier: {weights: x}}}\n",
            "serin.yaml:5: cascades.s.escalate_when.classifier.weights: the classifier does not begin with",
        ),
        (
            TWO + "cascades:\n  s: {first: a, then: b, escalate_when: {classifier: {weights: x, above: 2}}}\n",
            "serin.yaml:5: cascades.s.escalate_when.classifier.above: 2 is not accepted; accepted: a number 0",
        ),
        (
            TWO + "tenants:\n  acme: {aliases: {x: nope}}\n",
            "serin.yaml:5: tenants.acme.aliases.x: nothing is named 'nope'; accepted: a name that all callers know",
        ),
        (
            TWO + "tenants:\n  acme: {aliases: {x: y, y: a}}\n",
            "serin.yaml:5: tenants.acme.aliases.x: nothing is named 'y'; accepted: a name that all callers know",
        ),
        (
            TWO + "tenants:\n  acme: {aliases: {a: a}}\n",
            "serin.yaml:5: tenants.acme.aliases.a: 'a' would lead to itself; accepted: another name: a, b, z",
        ),
        (
            TWO + "tenants:\n  acme:\n    aliases: {x: a}\n    projects:\n      web: {aliases: {y: w}}\n",
            "serin.yaml:8: tenants.acme.projects.web.aliases.y: nothing is named 'w'; accepted: a name that its "
            "organization knows: a, b, x, z",
        ),
        (
            TWO + "tenants:\n  acme: {projects: {web: {}}}\n  other: {projects: {web: {}}}\n",
            "serin.yaml:6: tenants.other.projects.web: project 'web' is already one of 'acme'; accepted: each project",
        ),
        (
            TWO + "tenants:\n  Acme: {}\n",
            "serin.yaml:5: tenants.Acme: not a name; accepted: names of organizations: 1 to 64 of a-z 0-9 . _ -",
        ),
        (
            TWO + "tenants:\n  acme: {aliases: {'a b': a}}\n",
            "serin.yaml:5: tenants.acme.aliases.a b: not a name; accepted: names of aliases: 1 to 128 of A-Z a-z",
        ),
    ],
)
def test_bad_file_names_line_key_and_what_is_accepted(text: str, expected: str):
    """Every way to be wrong is one line: file, line, key, what is wrong, what is accepted."""
    assert problems(text)[0].startswith(expected)


def test_every_problem_is_listed_in_order():
    """A person mends the file once, not once per mistake."""
    lines = problems("gateway: {port: x}\nmodels:\n  a: {path: x, workers: -1}\n  b: {pth: y}\n")
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4"]


def test_a_date_is_text():
    """YAML 1.1 would make a date of a folder's name."""
    config = parse_config("models: {a: {path: 2026-10-01}}")
    assert config.models["a"].path == "2026-10-01"


def test_missing_file_is_a_problem_with_its_name(tmp_path):
    """A wrong path is said as such, with no traceback."""
    with pytest.raises(ConfigInvalid, match=r"none\.yaml: cannot be read: No such file or directory; accepted"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"models: \xff")
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_refused(text: str):
    """No text makes the reader fail in another way."""
    try:
        found: MeshConfig | tuple[Problem, ...] = parse_config(text)
    except ConfigInvalid as refused:
        found = refused.problems
    assert found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "workers", "v1"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b"]),
        st.fixed_dictionaries(
            {"path": json_values},
            optional={
                "workers": json_values,
                "versions": json_values,
                "aliases": json_values,
                "precision": json_values,
            },
        ),
    )
)
def test_schema_accepts_whatever_the_reader_accepts(models):
    """An editor that follows the JSON Schema never marks a file that the mesh takes."""
    document = {"models": models}
    try:
        parse_config(yaml.safe_dump(document))
    except ConfigInvalid:
        return
    jsonschema.validate(document, json_schema())


def test_defaults_of_the_worker_can_be_said():
    """0 and `auto` mean what they mean as flags, and lift what a model says from one of its versions."""
    zeros = "kv_cache_bytes: 0, kv_blocks: 0, max_batched_tokens: 0, context_length: 0, threads: 0, numerics: auto"
    text = f"models:\n  a:\n    kv_blocks: 64\n    versions:\n      v1: {{path: x, {zeros}}}\n"
    (release,) = parse_config(text).models["a"].releases()
    assert (release.engine["kv_blocks"], release.engine["numerics"]) == (0, "auto")


def test_committed_schema_is_current():
    """`python -m serin_control.schema` was run after the last change."""
    committed = resources.files("serin_control").joinpath("schema/serin.schema.json").read_text()
    assert json.loads(committed) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(yaml.safe_load(GOOD), json_schema())


def test_diff_names_what_changed():
    """A reader sees keys, old and new values, and nothing that stayed."""
    old = parse_config(GOOD)
    new = parse_config(
        GOOD.replace("weight: 90", "weight: 50")
        .replace("weight: 10", "weight: 50")
        .replace("gpt-demo", "demo, d")
        .replace("limits:\n  requests_per_minute: 60\n", "")
        .replace("  other:\n    path: org/other\n", "")
    )
    assert diff(old, new) == [
        "models.small.versions.v1.weight: 90 -> 50",
        "models.small.versions.v2.weight: 10 -> 50",
        "models.small.aliases: gpt-demo -> demo, d",
        "- models.other.path: org/other",
        "- limits.requests_per_minute: 60",
    ]
    assert diff(old, parse_config(GOOD)) == []
    assert "+ models.other.path: org/other" in diff(None, old)
