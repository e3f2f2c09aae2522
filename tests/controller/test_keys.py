import json
import logging
import stat

import pytest

from controller.cli import main
from controller.errors import ConfigError
from controller.key_settings import ClientKeySettings, ServerKeySettings
from controller.keys import (
    AllowList,
    client_keys,
    fingerprint,
    key_directory,
    names,
    read_allowed,
    read_public,
    read_secret,
    server_keys,
    write_pair,
)
from controller.transport import key_pair, public_key

PUBLIC, SECRET = bytes(range(32)), bytes(range(100, 132))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user's directory without any keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "onebeat" / "keys"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_where_keys_are_kept(monkeypatch, home, tmp_path):
    assert key_directory() == home
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_directory() == tmp_path / ".config" / "onebeat" / "keys"


def test_a_pair_is_two_files_of_one_line(home):
    secret, public = write_pair("robot", PUBLIC, SECRET)
    assert (secret, public) == (home / "robot.key", home / "robot.pub")
    assert secret.read_text() == f"onebeat-secret {SECRET.hex()}\n"
    assert public.read_text() == f"onebeat-public {PUBLIC.hex()}\n"
    assert (mode(home), mode(secret)) == (0o700, 0o600)
    assert read_secret("robot") == read_secret(str(secret)) == SECRET
    assert read_public("robot") == read_public(str(public)) == read_public(PUBLIC.hex()) == PUBLIC


@pytest.mark.parametrize(
    ("secret", "public"),
    [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
)
def test_a_public_key_is_the_secret_times_the_base_point(secret, public):
    """The pairs of RFC 7748, section 6.1."""
    assert public_key(bytes.fromhex(secret)).hex() == public


def test_new_pairs_fit_together_and_differ():
    pairs = [key_pair() for _ in range(3)]
    assert all(public_key(secret) == public for public, secret in pairs)
    assert len({key for pair in pairs for key in pair}) == 6
    assert {len(key) for pair in pairs for key in pair} == {32}


def test_a_key_is_never_written_over(home):
    secret, public = write_pair("robot", PUBLIC, SECRET)
    for path in (secret, public):
        kept = path.read_bytes()
        with pytest.raises(ConfigError, match=r"robot\..* there is such a key already"):
            write_pair("robot", *key_pair())
        assert path.read_bytes() == kept
        secret.unlink(missing_ok=True)  # half a pair is a pair


@pytest.mark.parametrize("name", ["", "../robot", "a/b", ".hidden", "x" * 65, "a b", "ü"])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="expected 1 to 64 letters"):
        write_pair(name, PUBLIC, SECRET)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_secret_that_others_may_read_is_refused(bits):
    secret, _ = write_pair("robot", PUBLIC, SECRET)
    secret.chmod(bits)
    with pytest.raises(ConfigError, match=rf"mode 0{bits:o}\), expected 0600: chmod 600"):
        read_secret("robot")
    secret.chmod(0o400)
    assert read_secret("robot") == SECRET


def test_a_secret_is_no_public_key_and_the_other_way_round(tmp_path):
    secret, public = write_pair("robot", PUBLIC, SECRET, tmp_path)
    with pytest.raises(ConfigError, match=r"robot.key: a secret key, not a public key"):
        read_public(str(secret))
    with pytest.raises(ConfigError, match=r"robot.pub: a public key, not a secret key"):
        read_secret(str(public))


@pytest.mark.parametrize(
    "content",
    [b"", b"onebeat-public\n", b"onebeat-public " + 63 * b"a", b"onebeat-public " + 64 * b"g",
     b"onebeat-public " + 64 * b"a" + b" more", 64 * b"a", b"\xff\xfe\x00"],
)  # fmt: skip
def test_files_that_are_no_keys(tmp_path, content):
    (tmp_path / "bad.pub").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.pub: "):
        read_public(str(tmp_path / "bad.pub"))


def test_a_missing_key_names_those_that_are_there():
    with pytest.raises(ConfigError, match=r"robot: a secret key .* onebeat keys new robot"):
        read_secret("robot")
    write_pair("robot", PUBLIC, SECRET)
    with pytest.raises(ConfigError, match=r"rabot: a public key .* did you mean robot"):
        read_public("rabot")
    with pytest.raises(ConfigError, match=r"no/such\.pub: no such key file"):
        read_public("no/such.pub")


def test_an_allow_list_of_names_files_digits_and_directories(tmp_path):
    keys = {name: key_pair() for name in ("a", "b", "c", "d", "e")}
    write_pair("a", *keys["a"])
    for name in ("b", "c", "d"):
        write_pair(name, *keys[name], tmp_path / name[:1] if name == "b" else tmp_path / "more")
    digits = keys["e"][0].hex()
    allowed = read_allowed(["a", "b/b.pub", str(tmp_path / "more"), digits])
    assert {key: allowed[key] for key in allowed} == {
        **{keys[name][0]: name for name in "abcd"},
        keys["e"][0]: fingerprint(keys["e"][0]),
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="without public keys"):
        read_allowed([str(tmp_path / "none")])


def test_settings_lead_to_keys():
    assert server_keys(ServerKeySettings()) is None
    assert client_keys(ClientKeySettings()) is None
    public, secret = key_pair()
    write_pair("gpu", public, secret)
    write_pair("robot", PUBLIC, SECRET)
    server = server_keys(ServerKeySettings("gpu", "robot"))
    assert (server.secret, server.clients) == (secret, {PUBLIC: "robot"})
    client = client_keys(ClientKeySettings("robot", "gpu"))
    assert (client.secret, client.server) == (SECRET, public)
    for shown in (repr(server), repr(client)):
        assert secret.hex() not in shown
        assert repr(SECRET) not in shown
        assert repr(secret) not in shown


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ServerKeySettings(secret="gpu"), "clients is missing"),
        (lambda: ServerKeySettings(clients=("robot",)), "secret is missing"),
        (lambda: ClientKeySettings(secret="robot"), "server is missing"),
        (lambda: ClientKeySettings(server="gpu"), "secret is missing"),
        (lambda: ClientKeySettings("robot", "gpu").require(None), "name its endpoint"),
    ],
)
def test_settings_that_are_half(make, match):
    with pytest.raises(ValueError, match=match):
        make()


REQUEST = [b"1.0", b"7", b"onebeat", b"10.0.0.2", b"", b"CURVE", PUBLIC]


def test_who_gets_in():
    """The answers of RFC 27, by hand."""
    listed = AllowList({PUBLIC: "robot"})
    assert listed.admit(REQUEST) == [b"1.0", b"7", b"200", b"", b"robot", b""]
    assert listed.denied == 0
    no = [b"1.0", b"7", b"400", b"not on the allow-list", b"", b""]
    assert listed.admit([*REQUEST[:6], SECRET]) == no
    assert listed.admit([*REQUEST[:5], b"PLAIN", PUBLIC]) == no
    assert listed.admit([*REQUEST[:5], b"NULL"]) == no
    assert listed.admit([b"2.0", *REQUEST[1:]]) == no
    assert listed.admit([*REQUEST, b"more"]) == no
    assert listed.admit([]) == [b"1.0", b"", *no[2:]]
    assert AllowList({}).admit(REQUEST) == no
    assert listed.denied == 6


def test_who_is_turned_away_is_told_seldom(caplog):
    listed = AllowList({})
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            listed.admit(REQUEST)
    assert len(caplog.records) == 7  # 1, 2, 4, ... 64
    assert f"key {fingerprint(PUBLIC)} from 10.0.0.2 is not allowed (1 so far)" in caplog.text


# The verbs.


def said(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_new_show_and_list(capsys, home):
    made = said(capsys, "keys", "new", "robot")
    assert made["secret"] == str(home / "robot.key")
    assert made["public_key"] == read_public("robot").hex()
    assert public_key(read_secret("robot")) == read_public("robot")
    shown = said(capsys, "keys", "show", "robot")
    assert shown["public_key"] == made["public_key"]
    assert shown["fingerprint"] == made["fingerprint"] == fingerprint(read_public("robot"))
    (home / "gpu.pub").write_text(f"onebeat-public {PUBLIC.hex()}\n")
    assert said(capsys, "keys", "list") == [
        {"name": "gpu", "fingerprint": fingerprint(PUBLIC), "secret": ""},
        {"name": "robot", "fingerprint": made["fingerprint"], "secret": "here"},
    ]
    assert names() == ["gpu", "robot"]


def test_a_secret_is_never_shown(capsys):
    main(["keys", "new", "robot"])
    main(["keys", "show", "robot"])
    main(["keys", "list"])
    out = capsys.readouterr().out
    assert read_public("robot").hex() in out
    assert read_secret("robot").hex() not in out


def test_a_lost_public_key_follows_from_the_secret(capsys, home):
    made = said(capsys, "keys", "new", "robot")
    (home / "robot.pub").unlink()
    for name in ("robot", str(home / "robot.key")):
        assert said(capsys, "keys", "show", name)["public_key"] == made["public_key"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["keys", "new"], "name is missing"),
        (["keys", "show"], "name is missing"),
        (["keys", "new", "a/b"], "expected 1 to 64 letters"),
        (["keys", "show", "none"], "none: a public key of this name is not in"),
    ],
)
def test_verbs_that_cannot(capsys, words, match):
    assert main(words) == 2
    assert match in capsys.readouterr().err


def test_an_empty_list_says_how_to_begin(capsys):
    assert main(["keys", "list"]) == 0
    assert "onebeat keys new NAME" in " ".join(capsys.readouterr().out.split())
