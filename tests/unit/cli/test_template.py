from __future__ import annotations

from typing import Any

import pytest

from enisle.cli.template import Template
from enisle.errors import Invalid

DATA: dict[str, Any] = {
    "ID": "abc",
    "Names": "web",
    "Running": True,
    "Zero": 0,
    "Nothing": None,
    "List": ["a", "b"],
    "Map": {"k2": "v2", "k1": "v1"},
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None},
    "Networks": {"n1": {"IPAddress": "10.0.0.1"}, "n2": {"IPAddress": "10.0.0.2"}},
    "Label": lambda key: {"a": "x"}.get(key, ""),
    "Float": 1.5,
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{.ID}}:{{ .Names }}", "abc:web"),
        ("{{json .Ports}}", '{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null}'),
        ("{{.List | json}}", '["a","b"]'),
        ('{{join .List ","}}', "a,b"),
        ("{{upper .ID}} {{.ID | upper | lower}}", "ABC abc"),
        ("{{range .Networks}}{{.IPAddress}} {{end}}", "10.0.0.1 10.0.0.2 "),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "k1=v1;k2=v2;"),
        ("{{range $i, $e := .List}}{{if $i}}, {{end}}{{$e}}{{end}}", "a, b"),
        ("{{range .Zero}}x{{else}}none{{end}}", "none"),
        ("{{if .Running}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Zero}}a{{else if .Running}}b{{else}}c{{end}}", "b"),
        ('{{if eq .ID "abc"}}same{{end}}', "same"),
        ('{{if and .Running (ne .ID "x")}}both{{end}}', "both"),
        ("{{if or .Zero .Nothing}}a{{else}}b{{end}}{{if not .Zero}}c{{end}}", "bc"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Ports "80/tcp" 0 | json}}', '{"HostIp":"0.0.0.0","HostPort":"8080"}'),
        ('{{.Label "a"}}-{{.Label "none"}}', "x-"),
        ("{{with .Map}}{{.k1}}{{end}}{{with .Nothing}}no{{else}}empty{{end}}", "v1empty"),
        ("{{$x := .ID}}{{$x}}/{{$.Names}}", "abc/web"),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{/* comment */}}x", "x"),
        ("{{.Running}} {{.Nothing}} {{.List}} {{.Map}} {{.Float}}", "true <no value> [a b] map[k1:v1 k2:v2] 1.5"),
        ('{{printf "%-5s|%3d|%q" .ID .Zero "x"}}', 'abc  |  0|"x"'),
        ("{{len .List}} {{len .Map}}", "2 2"),
        ("{{slice .ID 1 2}}{{truncate .ID 1}}", "ba"),
        ('{{"a\\"b"}} {{`raw`}}', 'a"b raw'),
        ("{{println .ID}}", "abc\n"),
        ("{{if .Missing}}a{{else}}b{{end}}{{if .Missing.Deeper}}a{{end}}", "b"),
        ("{{with .Missing}}{{.Status}}{{else}}none{{end}}", "none"),
        ("{{pad .ID 1 2}}|", " abc  |"),
        ("{{if gt 2 1}}{{if le 1 1}}ok{{end}}{{end}}", "ok"),
    ],
)
def test_templates_give_what_go_gives(source: str, expected: str) -> None:
    assert Template(source).render(DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Missing}}", 'no entry for key "Missing"'),
        ("{{.ID.Deeper}}", "can't evaluate field Deeper"),
        ("{{nope .ID}}", 'function "nope" not defined'),
        ("{{if .ID}}x", "without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{.ID", "unclosed action"),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{}}", "missing value"),
        ("{{$x}}", "undefined variable"),
        ("{{index .List 9}}", "cannot be applied"),
        ("{{.ID 3}}", "no function"),
        ("{{#}}", "unexpected '#'"),
    ],
)
def test_mistakes_are_named(source: str, message: str) -> None:
    with pytest.raises(Invalid, match=message.replace("{", r"\{").replace("(", r"\(")):
        Template(source).render(DATA)
