"""Which profile a command takes, and what it says about it."""

from pathlib import Path

import pytest

from sftjob.app.profiles import config_folder, find_profile
from sftjob.errors import SpecError
from sftjob.spec import Profile


def write(path: Path, namespace: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"namespace: {namespace}\n")
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config folder, still empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "sftjob"


class TestNamedOnTheCommandLine:
    def test_a_file_is_read(self, config: Path, tmp_path: Path) -> None:
        assert find_profile(str(write(tmp_path / "mine.yaml", "files"))).namespace == "files"

    def test_a_name_is_looked_up_in_the_config_folder(self, config: Path) -> None:
        write(config / "profiles" / "prod.yaml", "prod")

        assert find_profile("prod").namespace == "prod"

    def test_a_file_of_that_name_goes_first(self, config: Path, tmp_path: Path) -> None:
        write(config / "profiles" / "prod.yaml", "named")
        write(tmp_path / "prod", "here")

        assert find_profile("prod").namespace == "here"

    def test_it_goes_before_variable_and_default(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(config / "profile.yaml", "default")
        write(config / "profiles" / "one.yaml", "one")
        write(config / "profiles" / "two.yaml", "two")
        monkeypatch.setenv("SFTJOB_PROFILE", "two")

        assert find_profile("one").namespace == "one"

    @pytest.mark.parametrize(
        ("there", "hint"),
        [
            ([], r"write \S+/profiles/prodd\.yaml, or name a file"),
            (["prod.yaml", "test.yml"], r"did you mean `prod`\?"),
            (["eks.yaml", "aks.yaml"], "there are aks, eks"),
        ],
    )
    def test_an_unknown_name_is_one_line_with_the_names_that_exist(
        self, config: Path, there: list[str], hint: str
    ) -> None:
        for name in there:
            write(config / "profiles" / name, "x")

        with pytest.raises(SpecError, match=rf"^--profile: no profile 'prodd' in \S+; {hint}$"):
            find_profile("prodd")

    def test_a_path_that_is_not_there_is_no_name(self, config: Path) -> None:
        with pytest.raises(SpecError, match=r"^no/such\.yaml: no such file"):
            find_profile("no/such.yaml")


class TestNamedByNobody:
    def test_an_empty_profile_is_taken_in_silence(self, config: Path) -> None:
        told: list[str] = []

        assert find_profile(progress=told.append) == Profile()
        assert told == []

    def test_the_default_is_taken_and_told(self, config: Path) -> None:
        path = write(config / "profile.yaml", "default")
        told: list[str] = []

        assert find_profile(progress=told.append).namespace == "default"
        assert told == [f"profile  {path} (the default)"]

    def test_the_variable_goes_before_the_default_and_is_told(
        self, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(config / "profile.yaml", "default")
        path = write(config / "profiles" / "two.yaml", "two")
        monkeypatch.setenv("SFTJOB_PROFILE", "two")
        told: list[str] = []

        assert find_profile(progress=told.append).namespace == "two"
        assert told == [f"profile  {path} (SFTJOB_PROFILE)"]

    def test_a_broken_default_is_not_passed_over(self, config: Path) -> None:
        path = config / "profile.yaml"
        write(path, "x").write_text("namespce: x\n")

        with pytest.raises(SpecError, match=rf"^{path}:1: namespce: .*`namespace`"):
            find_profile()


@pytest.mark.parametrize("base", ["", "relative/path"])
def test_without_an_absolute_config_home_it_is_below_home(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")

    assert config_folder({"XDG_CONFIG_HOME": base}) == Path("/somewhere/.config/sftjob")
