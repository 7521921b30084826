import json
import os

import pytest

from smsctl.connection import Given, find_target
from smsctl.failures import Mistake
from smsctl.profiles import Profile, Profiles, load, save


@pytest.fixture
def environment(tmp_path):
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def config(tmp_path):
    return tmp_path / "config" / "smsctl" / "config.toml"


@pytest.fixture
def known(config):
    profiles = {name: Profile(api=f"http://{name}", key=f"k-{name}") for name in ("prod", "lab")}
    save(config, Profiles("prod", profiles))


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "checkout" / "build" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"api": "http://run", "temporal": "t", "api_key": "k-run"}))
    return path


@pytest.fixture
def folder(run_file):
    inside = run_file.parent.parent / "deep" / "inside"
    inside.mkdir(parents=True)
    return inside


def found(given, environment, folder):
    target = find_target(given, environment, folder)
    return target.api, target.key


IN_ENVIRONMENT = {"SMSCTL_API": "http://env", "SMSCTL_KEY": "k-env"}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (Given(api="http://cli", key="k-cli"), IN_ENVIRONMENT, ("http://cli", "k-cli")),
        (Given(profile="lab"), IN_ENVIRONMENT, ("http://lab", "k-lab")),
        (Given(profile="lab", key="k-cli"), {}, ("http://lab", "k-cli")),
        (Given(), IN_ENVIRONMENT, ("http://env", "k-env")),
        (Given(key="k-cli"), IN_ENVIRONMENT, ("http://env", "k-cli")),
        (Given(), {"SMSCTL_PROFILE": "lab"}, ("http://lab", "k-lab")),
        (Given(), {"SMSCTL_KEY": "k-env"}, ("http://prod", "k-env")),
        (Given(), {"SMSCTL_API": "", "SMSCTL_KEY": ""}, ("http://prod", "k-prod")),
        (Given(), {}, ("http://prod", "k-prod")),
    ],
)
def test_the_most_explicit_place_decides(environment, folder, given, variables, expected):
    assert found(given, environment | variables, folder) == expected


def test_the_running_checkout_is_used_when_nothing_else_is_said(environment, folder):
    assert found(Given(), environment, folder) == ("http://run", "k-run")


def test_an_operator_takes_the_operators_key_of_the_place_that_names_the_gateway(
    environment, folder, run_file
):
    run_file.write_text(
        json.dumps({"api": "http://run", "api_key": "sg_live_r", "operator_key": "sg_o"})
    )
    target = find_target(Given(), environment, folder, operator=True)
    assert (target.api, target.key) == ("http://run", "sg_o")
    assert find_target(Given(), environment, folder).key == "sg_live_r"
    given = Given(key="sg_given")
    assert find_target(given, environment, folder, operator=True).key == "sg_given"


def test_an_operator_takes_the_only_key_where_a_place_has_none_for_operators(environment, folder):
    environment |= {"SMSCTL_API": "https://x.example.com", "SMSCTL_KEY": "sg_one"}
    assert find_target(Given(), environment, folder, operator=True).key == "sg_one"
    environment |= {"SMSCTL_OPERATOR_KEY": "sg_two"}
    assert find_target(Given(), environment, folder, operator=True).key == "sg_two"
    assert find_target(Given(), environment, folder).key == "sg_one"


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("given", "variables"),
    [(Given(api="http://cli"), {}), (Given(), {"SMSCTL_API": "http://env"})],
)
def test_a_key_never_goes_to_another_gateway_than_its_own(environment, folder, given, variables):
    with pytest.raises(Mistake, match="no key to go with it"):
        find_target(given, environment | variables, folder)


def test_nothing_configured_says_what_can_be_done(environment, tmp_path):
    with pytest.raises(Mistake, match="`smsctl profile add`"):
        find_target(Given(), environment, tmp_path)


@pytest.mark.usefixtures("known")
def test_an_unknown_profile_names_those_there_are(environment, folder):
    with pytest.raises(Mistake, match="there are: lab, prod"):
        find_target(Given(profile="nobody"), environment, folder)


def test_a_key_may_be_a_reference(environment, tmp_path):
    (tmp_path / "key").write_text("k-file\n")
    variables = environment | {"THE_KEY": "k-var"}
    for reference, key in (("env:THE_KEY", "k-var"), (f"file:{tmp_path}/key", "k-file")):
        given = Given(api="http://cli", key=reference)
        assert found(given, variables, tmp_path) == ("http://cli", key)


@pytest.mark.parametrize("reference", ["env:NOT_SET", "file:/not/there", "env:"])
def test_a_reference_that_cannot_be_resolved_is_reported(environment, tmp_path, reference):
    with pytest.raises(Mistake, match="The key is to be taken from"):
        find_target(Given(api="http://cli", key=reference), environment, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"api": "http://run"}', "\x00"])
def test_a_broken_run_file_is_reported_with_its_path(environment, folder, run_file, content):
    run_file.write_text(content)
    with pytest.raises(Mistake, match=r"run\.json does not hold"):
        find_target(Given(), environment, folder)


def test_a_run_file_that_anybody_could_have_written_is_not_believed(environment, folder, run_file):
    run_file.chmod(0o666)
    with pytest.raises(Mistake, match="not known which gateway"):
        find_target(Given(), environment, folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_run_file_of_somebody_else_is_not_believed(environment, folder, run_file):
    os.chown(run_file, 65534, 65534)
    with pytest.raises(Mistake, match="not known which gateway"):
        find_target(Given(), environment, folder)


def test_profiles_are_read_as_they_were_written(config):
    odd = {"a-b_1": Profile(api='http://h/"x"', key="file:C:\\k ü")}
    save(config, Profiles(None, odd))
    assert load(config) == Profiles(None, odd)


def test_no_file_is_no_profiles(config):
    assert load(config) == Profiles()


@pytest.mark.parametrize(
    "content",
    ["[", "x = 1", "[profiles.a]\napi = 'secret-host'", "[profiles.a]\napi = 1\nkey = 'sg_1'"],
)
def test_an_invalid_configuration_file_is_reported_without_its_secrets(config, content):
    config.parent.mkdir(parents=True)
    config.write_text(content)
    with pytest.raises(Mistake, match=r"config\.toml is not") as mistaken:
        load(config)
    assert "sg_1" not in str(mistaken.value)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Mistake, match="cannot be written"):
        save(tmp_path / "file" / "config.toml", Profiles())


def test_a_control_character_is_not_written(config):
    with pytest.raises(Mistake, match="control characters"):
        save(config, Profiles(None, {"a": Profile(api="http://h\n", key="k")}))
    assert not config.exists()
