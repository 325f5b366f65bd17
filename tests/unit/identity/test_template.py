"""Templates: what Go's text/template would write, and nothing but typed refusals for the rest."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import template
from cluster.template import Fields, TemplateError

FIELDS = Fields(
    "sid", "web", {"a": "x", "b.c": "y"}, "nid", "host", "linux", "amd64", "tid", "web.2.tid", "2"
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain }} text", "plain }} text"),
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-2"),
        (
            "{{.Service.ID}} {{.Node.ID}} {{.Node.Hostname}} {{.Task.ID}} {{.Task.Name}}",
            "sid nid host tid web.2.tid",
        ),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/amd64"),
        ("{{.Service.Labels}}", "map[a:x b.c:y]"),
        ('{{index .Service.Labels "b.c"}}|{{index .Service.Labels "none"}}|{{.Service.Labels.a}}', "y||x"),
        ("a  {{- .Task.Slot -}}  b", "a2b"),
        ("{{- /* nothing */ -}} x {{/* here */}}y", "x y"),
        ('{{if eq .Task.Slot "1"}}first{{else if eq .Task.Slot "2" "3"}}later{{else}}none{{end}}', "later"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=x;b.c=y;"),
        ('{{printf "%c%c" 0xd800 65}}', "\N{REPLACEMENT CHARACTER}A"),
        ("{{range .Service.Labels}}{{.}}{{break}}{{end}}{{with $.Node}}{{.ID}}{{end}}", "xnid"),
        ('{{with .Service.Labels.a}}{{.}}{{end}}{{with ""}}no{{else}}empty{{end}}', "xempty"),
        ('{{$n := 1}}{{if true}}{{$n = 2}}{{end}}{{$n}}{{len "héllo"}}{{slice "hello" 1 3}}', "26el"),
        (
            '{{printf "%s|%5d|%-4s|%04d|%x|%q|%v|%%" "s" 7 "ab" 42 255 "q" true}}',
            's|    7|ab  |0042|ff|"q"|true|%',
        ),
        ('{{"b" | printf "%s%s" "a" | print}} {{print 1 2 "c"}} {{join "," "a" "b"}}', "ab 1 2c a,b"),
        (
            '{{and .Service.Name ""}}{{or "" "x"}}{{not true}}{{ne 1 2}}{{lt 1 2}}{{ge "b" "a"}}',
            "xfalsetruetruetrue",
        ),
        (
            "{{(index .Service.Labels \"a\")}}{{(.Node).ID}}{{`raw {{ }}`}}{{'a'}}{{0x1f}}{{1.5}}",
            "xnidraw {{ }}97311.5",
        ),
        (
            '{{printf "%d" "x"}}{{printf "%s"}}{{printf "%d" 1 2}}{{printf "%"}}',
            "%!d(string=x)%!s(MISSING)1%!(EXTRA int=2)%!(NOVERB)",
        ),
    ],
)
def test_filled_in(text: str, wanted: str) -> None:
    assert template.expand(text, FIELDS) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Service.Name", "not closed"),
        ("{{.Nope}}", "no field Nope"),
        ("{{.Service.Labels.zz}}", 'no entry for key "zz"'),
        ("{{.Service.Name.X}}", "can't evaluate field X in type string"),
        ("{{nope 1}}", 'function "nope" not defined'),
        ('{{secret "x"}}', 'function "secret" not defined'),
        ("{{if true}}", "if has no"),
        ("{{end}}", "unexpected"),
        ("{{else}}", "unexpected"),
        ("{{break}}", "outside"),
        ("{{range .Service.Labels}}{{else}}{{break}}{{end}}", "outside"),
        ('{{define "x"}}{{end}}', "define is not supported"),
        ('{{eq 1 "1"}}', "incompatible types"),
        ("{{lt true false}}", "can't be put in order"),
        ("{{index .Service.Labels 1}}", "indexed by a string"),
        ('{{index "abc" 3}}', "out of range"),
        ("{{len 3}}", "len of type int"),
        ("{{range 3}}{{end}}", "can't iterate over int"),
        ("{{not}}", "wrong number of arguments"),
        ("{{$x}}", "undefined variable"),
        ("{{.Task.Slot 1}}", "not a function"),
        ('{{"a" | .Task}}', "only functions may follow"),
        ("{{(1}}", "unclosed"),
        ('{{"\\z"}}', "escape"),
        ("{{9999999999999999999999}}", "bad number"),
        ("{{}}", "missing value"),
        ('{{printf "%999999d" 1}}', "widths"),
        ("{{" + "(" * 100 + "1" + ")" * 100 + "}}", "too deep"),
        ("{{if true}}" * 100 + "{{end}}" * 100, "too deep"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        template.expand(text, FIELDS)


def test_payloads_call_what_they_are_given() -> None:
    text = '{{secret "key"}}-{{env "HOME"}}{{if config "c"}}!{{end}}'
    functions = {"secret": lambda name: f"<{name}>", "env": lambda name: "/root", "config": lambda name: ""}
    assert template.expand(text, FIELDS, functions) == "<key>-/root"
    template.check_payload(text)
    with pytest.raises(TemplateError, match="not defined"):
        template.check_payload('{{file "x"}}')


@pytest.mark.parametrize(
    "text",
    [
        "{{range .Service.Labels}}" * 20 + "x" + "{{end}}" * 20,
        '{{$x := "0123456789"}}' + "{{$x = print $x $x}}" * 60,
        "{{$x := print .}}" + "{{join $x" + " $x" * 5000 + "}}" * 1,
        '{{printf "' + "%9999d" * 1000 + '"' + " 1" * 1000 + "}}",
        "{{ " + "x " * 200_000,
        "{{/*" * 50_000,
    ],
    ids=["ranges", "doubling", "join", "widths", "unclosed", "comments"],
)
def test_what_would_never_end_is_refused_soon(text: str) -> None:
    many = Fields(service_labels={f"k{number}": "v" * 100 for number in range(50)})
    begun = time.process_time()
    with pytest.raises(TemplateError):
        template.expand(text, many)
    assert time.process_time() - begun < 20  # it takes about one; without a bound, for ever


_WORDS = st.sampled_from(
    ["{{", "}}", "{{- ", " -}}", ".Service", ".Labels", ".Name", "$x", ":=", "=", "|", "(", ")", '"a"', "`",
     "'", "range ", "if ", "with ", "else ", "{{end}}", "{{else}}", "index ", "printf ", "eq ", "len ", "1",
     "-1.5e3", "%d", "%v", " ", "\n", "\\", ",", "and ", "slice ", "join ", "break", "continue", "nil",
     "true", "/*", "*/", "é"]
)  # fmt: skip
_TEXTS = st.lists(_WORDS, max_size=30).map("".join) | st.text().map(lambda text: "{{" + text + "}}")


@given(_TEXTS)
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    try:
        filled = template.expand(text, FIELDS)
    except TemplateError:
        return
    assert "{{" in text or filled == text


@given(st.text().filter(lambda text: "{{" not in text))
def test_plain_text_stays(text: str) -> None:
    assert template.expand(text, FIELDS) == text
