"""Loading the configuration: what is accepted, and what is said about what is not."""

import tomllib
from pathlib import Path

import pytest

from agent.contract import LanguageContract
from agent.errors import InvalidConfig
from agent.fakes import FixedDetector
from rewards.config import DEFAULT_WEIGHTS
from rewards.panel import build_panel
from service.config import NodeConfig
from service.config_file import check_languages, load, parse
from service.config_text import effective, effective_toml
from service.secrets import Secrets

HASH_A = "sha256:" + "a" * 64
HASH_B = "sha256:" + "b" * 64


HOST_RULE = "must be a host such as hooks.example.com or *.example.com"
NO_PARTS = "fidelity = 0\nlength = 0\nrepetition = 0\nsubstance = 0\n"


def problem(text: str) -> str:
    """What is said about a file."""
    with pytest.raises(InvalidConfig) as caught:
        parse(text, name="node.toml")
    return str(caught.value)


def tenant(tenant_id: str, key_hash: str, language: str = "pl", rest: str = "") -> str:
    return f'[[tenants]]\nid = "{tenant_id}"\nkey_hashes = ["{key_hash}"]\n[tenants.languages.{language}]\n{rest}\n'


def test_empty_file_is_the_defaults() -> None:
    """A file without a line is valid and means the defaults."""
    assert parse("") == NodeConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engine]\nmax_num_seq = 4", "engine.max_num_seq: unknown key; did you mean engine.max_num_seqs?"),
        ("[servr]\nport = 1", "servr: unknown key; did you mean server?"),
        ("max_num_seqs = 4", "max_num_seqs: unknown key; did you mean engine.max_num_seqs?"),
        (
            tenant("acme", HASH_A, rest='adress = "formal"'),
            "tenants[0].languages.pl.adress: unknown key; did you mean tenants[0].languages.pl.address?",
        ),
        ("[tuning.gate]\nmargim = 1", "tuning.gate.margim: unknown key; did you mean tuning.gate.margin?"),
        (
            "[tuning.full]\nzzz = 1",
            "tuning.full.zzz: unknown key; valid keys here: last_good",
        ),
    ],
)
def test_unknown_key_names_its_path_and_the_nearest_valid_one(text: str, said: str) -> None:
    """An unknown key is refused with its dotted path and the nearest valid key: beside it, else anywhere."""
    assert problem(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engine]\nmax_num_seqs = 0", "engine.max_num_seqs: must be at least 1, got 0"),
        ("[tuning]\nclip_low = 1.0", "tuning.clip_low: must be below 1.0, got 1.0"),
        ("[agent]\ntemperature = 3", "agent.temperature: must be at most 2.0, got 3"),
        ("[engine]\nkv_cache_gib = 0", "engine.kv_cache_gib: must be above 0.0, got 0"),
        (
            'log_level = "loud"',
            "log_level: must be 'debug', 'info', 'warning' or 'error', got 'loud'",
        ),
        ('[engine]\nmax_num_seqs = "many"', "engine.max_num_seqs: must be an integer, got 'many'"),
        ("[engine]\nmodel = true", "engine.model: must be text, got true"),
        ("engine = 3", "engine: must be a table, got 3"),
        ('[[tenants]]\nid = "acme"', "tenants[0].languages: must be set"),
        ("[server]\nshutdown_grace_s = inf", "server.shutdown_grace_s: must be a finite number, got inf"),
        ("[rewards.weights]\nfidelity = nan", "rewards.weights.fidelity: must be a finite number, got nan"),
        ("[engine]\nseed = -1", "engine.seed: must be at least 0, got -1"),
        ("[engine]\nseed = 4294967296", "engine.seed: must be at most 4294967295, got 4294967296"),
        (
            "[tuning.adapter]\ntarget_modules = []",
            "tuning.adapter.target_modules: must have at least 1 entry, got []",
        ),
        (
            "[webhooks]\ncallback_hosts = {acme = []}",
            "webhooks.callback_hosts.acme: must have at least 1 entry, got []",
        ),
        *(
            (
                f'[webhooks]\ncallback_hosts = {{acme = ["{host}"]}}',
                f"webhooks.callback_hosts.acme[0]: {HOST_RULE}, got {host!r}",
            )
            for host in ("", "*", "*.", "a.*.com", "https://hooks.example.com", "hooks.example.com:8443")
        ),
        *(
            (
                f'[webhooks]\npublic_url = "{url}"',
                f"webhooks.public_url: must be a URL such as https://coloq.example.com, got {url!r}",
            )
            for url in ("", "coloq.example.com", "https://", "http://[")
        ),
        ('[[tenants]]\nid = "acme"\nlanguages = {}', "tenants[0].languages: must have at least 1 entry, got {}"),
    ],
)
def test_bad_value_names_field_rule_and_what_came(text: str, said: str) -> None:
    """A value that breaks a rule is refused with the field, the rule and the value."""
    assert problem(text) == said


def test_every_broken_rule_is_reported_at_once() -> None:
    """One start is enough to learn everything that is wrong with a file."""
    assert problem("[engine]\nmax_num_seq = 4\nmax_model_len = 1\n[server]\nport = 70000") == (
        "node.toml breaks 3 rules:\n"
        "  server.port: must be at most 65535, got 70000\n"
        "  engine.max_model_len: must be at least 16, got 1\n"
        "  engine.max_num_seq: unknown key; did you mean engine.max_num_seqs?"
    )


def test_syntax_error_names_the_line() -> None:
    """What is not TOML is refused with the line and column."""
    assert problem("[server]\nport = = 1").startswith("node.toml: is not valid TOML: ")
    assert "line 2" in problem("[server]\nport = = 1")


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A configuration that does not exist is refused with the command that writes one."""
    with pytest.raises(InvalidConfig, match="no such file; `coloq init` writes one"):
        load(tmp_path / "node.toml")


def test_hosts_of_callbacks_may_be_names_patterns_and_addresses() -> None:
    """As URLs name them."""
    hosts = ["hooks.example.com", "*.example.com", "localhost", "10.1.2.3", "fd00::7"]
    config = parse(f"[webhooks]\npublic_url = 'http://node:8080/coloq'\ncallback_hosts = {{acme = {hosts}}}")
    assert config.webhooks.callback_hosts == {"acme": tuple(hosts)}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Some editors begin a text file with one."""
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = 1", encoding="utf-8-sig")
    assert load(file).server.port == 1


def test_data_dir_is_relative_to_the_file(tmp_path: Path) -> None:
    """A relative data folder lies beside the file, wherever the node is started from; an absolute one stays."""
    file = tmp_path / "node.toml"
    file.write_text('data_dir = "data"')
    assert load(file).data_dir == tmp_path / "data"
    file.write_text('data_dir = "/srv/coloq"')
    assert load(file).data_dir == Path("/srv/coloq")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[engine]\nmax_num_seqs = 2\nlive_reserve = 2",
            "engine.live_reserve: must be below engine.max_num_seqs (2), got 2",
        ),
        (
            "[engine]\nmax_model_len = 256\n[tuning]\nmax_tokens = 8",
            "agent.max_tokens: must be below engine.max_model_len (256), got 256",
        ),
        (
            "[engine]\nmax_model_len = 300\n[tuning]\nmax_tokens = 300",
            "tuning.max_tokens: must be below engine.max_model_len (300), got 300",
        ),
        (
            '[store]\nurl = "http://cache"',
            "store.url: must begin with redis://, rediss:// or unix://, got 'http://cache'",
        ),
        (
            '[tuning]\noptimizer = "cpu"',
            'tuning.optimizer: must be "device" with tuning.method = "adapter", whose moments are small, got \'cpu\'',
        ),
        (tenant("acme", HASH_A) + tenant("acme", HASH_B), "tenants: ids must be unique, got 'acme' 2 times"),
        (
            tenant("acme", HASH_A) + tenant("zeta", HASH_A),
            "tenants: a key_hash must stand once in the file, got sha256:aaaaaaaa... 2 times",
        ),
        (
            tenant("acme", HASH_A, language="Polish"),
            "tenants[0].languages.Polish: must be an ISO 639 code of two or three lower-case letters, got 'Polish'",
        ),
        (
            tenant("acme", HASH_A, rest="reward_weights = {fidelty = 1}"),
            (
                "tenants[0].languages.pl.reward_weights.fidelty: unknown reward part; "
                "did you mean tenants[0].languages.pl.reward_weights.fidelity?"
            ),
        ),
        ("[rewards.weights]\nstyle = 1", "rewards.weights.style: unknown reward part"),
        (
            '[rewards.extra]\nlength = "a:b"',
            "rewards.extra.length: must not take the name of a built-in part, got 'length'",
        ),
        (
            '[rewards.extra]\nstyle = "mine:make"',
            "rewards.weights.style: must be set for a judge of rewards.extra, got nothing",
        ),
        (
            '[rewards.models.taste]\nmodel = "org/scorer"',
            "rewards.weights.taste: must be set for a judge of rewards.models, got nothing",
        ),
        (
            '[rewards.weights]\ntaste = 1\n[rewards.models.taste]\nlanguages = ["de", "DE", "xx"]',
            (
                "node.toml breaks 2 rules:\n"
                "  rewards.models.taste.languages: must be ISO 639-1 codes, got 'DE'\n"
                "  rewards.models.taste.languages: must be ISO 639-1 codes, got 'xx'"
            ),
        ),
        (
            f"[rewards.weights]\n{NO_PARTS}",
            (
                "rewards.weights: must weigh a part above 0 that is no fault, got format, brand, banned, register, "
                "numerals, leakage, prose alone"
            ),
        ),
        (
            f"[rewards.weights]\n{NO_PARTS}" + tenant("acme", HASH_A) + "reward_weights = {length = 1}\n"
            "[tenants.languages.de]\nreward_weights = {prose = 2}",
            (
                "tenants[0].languages.de.reward_weights: must leave a part above 0 that is no fault, got format, "
                "brand, banned, register, numerals, leakage, prose alone"
            ),
        ),
    ],
)
def test_rules_between_keys_are_checked(text: str, said: str) -> None:
    """Rules that need two keys are checked when the file is loaded, not when the node trips over them."""
    assert problem(text) == said


def test_extra_reward_may_be_weighted() -> None:
    """A reward model named in `rewards.extra` may be given a weight, by everybody; the other parts keep theirs."""
    config = parse(
        '[rewards]\nextra = {style = "mine:make"}\nweights = {style = 2}\n'
        + tenant("acme", HASH_A, rest="reward_weights = {style = 1}")
    )
    assert config.rewards.weights == DEFAULT_WEIGHTS | {"style": 2.0}


def test_a_table_of_weights_changes_what_it_names() -> None:
    """Length counts more and substance not at all; fidelity and what faults cost stay; the same holds for a tenant."""
    weights = "[rewards.weights]\nlength = 2\nsubstance = 0\n"
    config = parse(weights + tenant("acme", HASH_A, rest="reward_weights = {prose = 0.25}"))
    assert config.rewards.weights == DEFAULT_WEIGHTS | {"length": 2.0, "substance": 0.0}
    panel = build_panel(config.rewards, config.tenants, LanguageContract(FixedDetector({})))
    assert panel.weights("acme", "pl") == DEFAULT_WEIGHTS | {"length": 2.0, "substance": 0.0, "prose": 0.25}


@pytest.mark.parametrize("url", ["redis://:hunter2@cache:6379/0", "redis://cache?password=hunter2"])
def test_password_in_the_store_url_is_refused_without_repeating_it(url: str) -> None:
    """Secrets come from the environment only; the refusal says where to put it and does not show it."""
    said = problem(f'[store]\nurl = "{url}"')
    assert "COLOQ_STORE_PASSWORD" in said
    assert "hunter2" not in said


def test_plain_key_among_the_hashes_is_not_repeated() -> None:
    """Somebody who pastes the key instead of its hash does not find it in the terminal or the logs."""
    said = problem(tenant("acme", "clq_acme_secret"))
    assert said.startswith("tenants[0].key_hashes[0]: must match ^sha256:")
    assert "clq_acme_secret" not in said


def test_language_that_the_detector_cannot_tell_is_refused() -> None:
    """A tenant's language must be one that the detector knows, else its contract could never hold."""
    config = parse(tenant("acme", HASH_A, language="plx"))
    with pytest.raises(InvalidConfig) as caught:
        check_languages(config, {"pl", "de"})
    assert str(caught.value) == (
        "tenants[0].languages.plx: must be a language that the detector knows, got 'plx'; did you mean pl?"
    )
    check_languages(parse(tenant("acme", HASH_A)), {"pl", "de"})


def test_effective_configuration_masks_key_hashes_and_reads_back() -> None:
    """`config show` prints valid TOML of the whole tree; hashes are cut short and secrets are only named."""
    config = parse('log_format = "json"\n' + tenant("acme", HASH_A, rest='brand_terms = ["Zażółć \\"X\\""]'))
    text = effective_toml(config, Secrets(store_password="hunter2"))
    assert text.startswith("# COLOQ_STORE_PASSWORD: set\n# COLOQ_ADMIN_KEY_HASH: unset\n")
    assert "hunter2" not in text
    tree = tomllib.loads(text)
    assert tree["tenants"][0]["key_hashes"] == ["sha256:aaaaaaaa..."]
    assert tree["tenants"][0]["languages"]["pl"]["brand_terms"] == ['Zażółć "X"']
    assert tree["engine"]["max_num_seqs"] == 16
    assert tree == _without_none(effective(config))


def _without_none(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(item) for item in tree] if isinstance(tree, list) else tree


def test_reward_models_are_parts_with_a_name_of_their_own() -> None:
    """A part may be weighed by its name; another judge's name, and a batch that cannot hold a reply, are refused."""
    config = parse('[rewards.models.taste]\nmodel = "org/scorer"\n[rewards.weights]\ntaste = 2.0\n')
    assert config.rewards.models["taste"].model == "org/scorer"
    with pytest.raises(InvalidConfig, match=r"rewards\.models\.length: must not take the name of another part"):
        parse("[rewards.models.length]\n")
    with pytest.raises(InvalidConfig, match=r"rewards\.models\.taste\.batch_tokens: must be at least max_tokens"):
        parse("[rewards.models.taste]\nmax_tokens = 9000\nbatch_tokens = 8000\n")
