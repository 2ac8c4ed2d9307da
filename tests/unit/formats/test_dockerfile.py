"""Dockerfiles: lines, words, instructions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import EnisleError, Invalid
from enisle.formats.dockerfile.instructions import Copy, From, OnBuild, Pairs, Run, SetHealthcheck
from enisle.formats.dockerfile.lines import split
from enisle.formats.dockerfile.parse import parse
from enisle.formats.dockerfile.words import Expander, expand, expand_heredoc


def test_continuations_comments_and_blank_rows() -> None:
    cut = split(
        "# syntax=docker/dockerfile:1\n# escape=`\n\nFROM a\n# between\n"
        "RUN one `\n# inside\n\n  two `  \nthree\nCMD x\n"
    )
    assert cut.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert [(line.keyword, line.rest, line.number, line.end) for line in cut.lines] == [
        ("FROM", "a", 4, 4),
        ("RUN", "one   two three", 6, 10),
        ("CMD", "x", 11, 11),
    ]


def test_here_documents() -> None:
    text = "FROM a\nRUN <<EOF\necho $x\nEOF\nCOPY <<'A' <<-B /to/\nplain $x\nA\n\ttabbed\nB\nRUN echo \"<<NO\"\n"
    run, copy, plain = parse(text).stages[0].instructions
    assert isinstance(run, Run)
    assert [(doc.name, doc.content, doc.expand) for doc in run.heredocs] == [("EOF", "echo $x\n", True)]
    assert isinstance(copy, Copy)
    assert [(doc.content, doc.expand) for doc in copy.heredocs] == [("plain $x\n", False), ("tabbed\n", True)]
    assert isinstance(plain, Run)
    assert plain.heredocs == ()


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("COPY <<robots.txt <<-'my file' /to/", ["robots.txt", "my file"]),
        ("RUN cat <<E.1; cat 3<<F>x", ["E.1", "F"]),
        ("RUN cat <<\\EOF", ["EOF"]),
        ("ONBUILD RUN cat <<X", ["X"]),
        ('RUN echo $((1<<n)) $((8 << n)) "<<q" a<<b <<<c', []),
    ],
)
def test_names_of_here_documents(rest: str, names: list[str]) -> None:
    text = f"{rest}\n" + "".join(f"text\n{name}\n" for name in names)
    [line] = split(text).lines
    assert [(doc.name, doc.content) for doc in line.heredocs] == [(name, "text\n") for name in names]


def test_a_source_that_only_looks_like_a_here_document() -> None:
    with pytest.raises(Invalid, match="<<A is no here-document"):
        parse('FROM a\nCOPY ["<<A", "/"]\n')


def test_blanks_of_any_kind_part_key_and_value() -> None:
    env, health = parse("FROM a\nENV key\tsome  text\nHEALTHCHECK CMD\ttrue\n").stages[0].instructions
    assert isinstance(env, Pairs)
    assert env.pairs == (("key", "some  text"),)
    assert isinstance(health, SetHealthcheck)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$a-${b}", "1-two words"),
        ("'$a'\"$a\"", "$a1"),
        (r"\$a", "$a"),
        ("${none:-d}${none-e}", "de"),
        ("${empty:-d}${empty-e}", "d"),
        ("${a:+set}${none:+set}", "set"),
        ("${path#*/}|${path##*/}|${path%/*}|${path%%/*}", "b/c.tar.gz|c.tar.gz|a/b|a"),
        ("${path/b/X}|${path//a/Y}", "a/X/c.tar.gz|Y/b/c.tYr.gz"),
        ("${none:-${a}${b}}", "1two words"),
        ("100$", "100$"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    variables = {"a": "1", "b": "two words", "empty": "", "path": "a/b/c.tar.gz"}
    assert expand(text, variables) == expanded


def test_an_expansion_is_not_cut_into_words() -> None:
    assert Expander("x $b 'y z'", {"b": "two words"}).words() == ["x", "two words", "y z"]


def test_required_variable() -> None:
    with pytest.raises(Invalid, match="needed: say it"):
        expand("${needed:?say it}", {})


def test_here_document_keeps_quotes() -> None:
    assert expand_heredoc("'$a' \"$a\" \\$a", {"a": "1"}) == "'1' \"1\" $a"


def test_instructions() -> None:
    text = (
        "ARG V=1\nFROM --platform=linux/arm64 base:$V AS Build\n"
        "ENV a=1 b='x y'\nENV old value here\nLABEL l=v\n"
        'COPY --from=build --chown=1:2 --exclude=*.md ["a b", "c", "/d"]\n'
        "HEALTHCHECK --interval=1m30s --retries=4 CMD curl x\nONBUILD RUN make\n"
        "RUN --mount=type=cache,target=/c,sharing=locked --network=none make\n"
    )
    dockerfile = parse(text)
    stage = dockerfile.stages[0]
    assert dockerfile.arguments[0].arguments == (("V", "1"),)
    assert isinstance(stage.base, From)
    assert (stage.base.image, stage.base.name, stage.base.platform) == ("base:$V", "build", "linux/arm64")
    env, old, label, copy, health, trigger, run = stage.instructions
    assert isinstance(env, Pairs)
    assert isinstance(old, Pairs)
    assert isinstance(label, Pairs)
    assert (env.pairs, old.pairs, label.kind) == ((("a", "1"), ("b", "'x y'")), (("old", "value here"),), "LABEL")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination, copy.source, copy.exclude) == (("a b", "c"), "/d", "build", ("*.md",))
    assert isinstance(health, SetHealthcheck)
    assert (health.interval_ns, health.retries) == (90 * 10**9, 4)
    assert isinstance(trigger, OnBuild)
    assert trigger.trigger == "RUN make"
    assert isinstance(run, Run)
    assert (run.mounts[0].kind, run.mounts[0].options["target"], run.network) == ("cache", "/c", "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "line 1: no build stage"),
        ("FROM a\nNOPE x", "line 2: unknown instruction: NOPE"),
        ("FROM a\n\nCOPY --frm=x a b", "line 3: unknown flag: --frm"),
        ("FROM a\nRUN <<EOF\nx", "line 2: unterminated heredoc EOF"),
        ("FROM a b", "line 1: FROM requires either one or three arguments"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("FROM a\nSHELL sh -c", "JSON form"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", "invalid duration"),
        ("", "no instruction"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        parse(text)


@given(st.text(alphabet="FROMRUNCOPYaAS \\\n\t\"'$<{}[]-=EOF#`,:", max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse("FROM a\n" + text)
    except EnisleError as error:
        assert "Traceback" not in str(error)


@given(st.text(max_size=100))
def test_any_word_expands_or_is_refused(text: str) -> None:
    try:
        expand(text, {"a": "1"})
        expand_heredoc(text, {"a": "1"})
    except Invalid:
        pass
