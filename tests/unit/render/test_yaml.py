import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sftjob.render.manifest import Json
from sftjob.render.yaml import manifests_yaml

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("a1y.-/ ", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)

AMBIGUOUS = (
    *("y", "N", "no", "On", "null", "~", "", "=", "<<"),
    *("0755", "0o755", "1e5", "1E-5", ".5", "0x1F", "1_000", "1:30", "570", "+1", "12345e7", ".inf", "-.INF", ".nan"),
    *("2026-11-24", "2026-11-24T00:00:00Z"),
)


class TestManifestsYaml:
    @settings(deadline=None)
    @given(st.dictionaries(st.text("ab", min_size=1), VALUES, max_size=4))
    def test_reads_back_as_written(self, manifest: dict[str, Json]) -> None:
        assert yaml.safe_load(manifests_yaml([manifest])) == manifest

    @settings(deadline=None)
    @given(st.dictionaries(st.text("ab", min_size=1), VALUES, max_size=4))
    def test_same_bytes_without_libyaml(self, manifest: dict[str, Json]) -> None:
        assert manifests_yaml([manifest]) == manifests_yaml([manifest], yaml.SafeDumper)

    @pytest.mark.parametrize("text", AMBIGUOUS)
    def test_quotes_what_a_reader_could_misread(self, text: str) -> None:
        assert manifests_yaml([{"a": text}]) == f'a: "{text}"\n'

    @pytest.mark.parametrize("text", ["16Gi", "500m", "100M", "yes-man", "nvidia.com/gpu", "sftjob:0.1.0-cpu", "none"])
    def test_leaves_the_rest_plain(self, text: str) -> None:
        assert manifests_yaml([{"a": text}]) == f"a: {text}\n"

    def test_lines_and_json_are_blocks(self) -> None:
        assert manifests_yaml([{"a": "one\ntwo\n", "b": '{"c":1}'}]) == 'a: |\n  one\n  two\nb: |-\n  {"c":1}\n'

    @pytest.mark.parametrize(("character", "escape"), [("\x85", r"\N"), ("\u2028", r"\L"), ("🦙", r"\U0001F999")])
    def test_escapes_what_readers_disagree_on(self, character: str, escape: str) -> None:
        assert manifests_yaml([{"a": f"{{{character}"}]) == f'a: "{{{escape}"\n'

    def test_never_folds(self) -> None:
        assert manifests_yaml([{"a": "word " * 100 + "end"}]).count("\n") == 1

    def test_same_value_twice_is_no_alias(self) -> None:
        shared: dict[str, Json] = {"b": "c"}

        assert manifests_yaml([{"x": shared, "y": shared}]) == 'x:\n  b: c\n"y":\n  b: c\n'

    def test_numbers_and_words(self) -> None:
        manifest: dict[str, Json] = {"a": [0, 1, True, False, None, -7]}

        assert manifests_yaml([manifest]) == "a:\n- 0\n- 1\n- true\n- false\n- null\n- -7\n"

    def test_documents_are_separated(self) -> None:
        assert manifests_yaml([{"a": 1}, {"b": 2}]) == "a: 1\n---\nb: 2\n"

    def test_pyyaml_itself_is_untouched(self) -> None:
        assert yaml.safe_dump({"a": "y", "b": "x\ny"}) == "a: y\nb: 'x\n\n  y'\n"
