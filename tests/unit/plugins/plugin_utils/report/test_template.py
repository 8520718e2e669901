"""Common properties of every page, whatever its template does."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.report import template

TEMPLATES = Path(template.__file__).parent / "templates"
HOSTILE = "\"'><script>alert(1)</script>&amp;"
ESCAPED = "&#34;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"


def rendered(monkeypatch: pytest.MonkeyPatch, text: str, **values: object) -> str:
    """A template beside the existing ones."""
    environment = template._environment().overlay()
    loaders = [jinja2.DictLoader({"page.html.j2": text}), environment.loader]
    environment.loader = jinja2.ChoiceLoader([loader for loader in loaders if loader])
    monkeypatch.setattr(template, "_environment", lambda: environment)
    return template.render("page.html.j2", **values)


@pytest.mark.parametrize(
    "text",
    [
        "{{ value }}",
        "{{ ['', value] | join }}",
        "{{ '%s' | format(value) }}",
        "{% from 'macros.html.j2' import section %}{% call section(value) %}{% endcall %}",
        "{% from 'macros.html.j2' import mark %}{{ mark('ok', value) }}",
        "{% from 'macros.html.j2' import bullets %}{{ bullets([value]) }}",
        "{% from 'macros.html.j2' import table %}{{ table([value], [[value]]) }}",
        "{% from 'macros.html.j2' import tile %}{% call tile(value, value) %}{{ value }}{% endcall %}",
        "{% set block %}{{ value }}{% endset %}{{ block ~ value }}",
    ],
)
def test_a_value_is_text_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    made = rendered(monkeypatch, text, value=HOSTILE)
    assert ESCAPED in made
    assert "<script" not in made


def test_no_page_shows_a_key_or_a_character_that_moves_others(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<p title='{{ value }}'>{{ value }}</p>\n{% set again %}{{ value }}{% endset %}{{ again }}"
    made = rendered(monkeypatch, text, value="sk-abcdefghijklmnopqrstuvwxyz\u202e\x1b")
    assert made == "<p title='sk-…  '>sk-…  </p>\nsk-…  "


def test_what_is_not_given_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'nothing' is undefined"):
        rendered(monkeypatch, "{{ nothing }}")


def test_a_verdict_is_in_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{% from 'macros.html.j2' import table %}{{ table(['A', 'B'], [[true, 1], [false, 2]], (1,)) }}"
    made = rendered(monkeypatch, text)
    assert re.findall(r'aria-label="(\w+)">(.)<', made) == [("passed", "✓"), ("failed", "✕")]
    assert made.count('<td class="n">') == 2


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_no_template_switches_escaping_off_or_loads_anything(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|Markup|https?:|@import|url\(", text)
    assert path.suffix in (".j2", ".css")


def test_every_property_that_a_stylesheet_uses_is_defined_and_used() -> None:
    text = "".join(path.read_text() for path in TEMPLATES.glob("*.css"))
    defined = re.findall(r"(--[\w-]+):", text)
    assert set(defined) == set(re.findall(r"var\((--[\w-]+)\)", text))


def test_any_page_stands_on_what_is_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "{% extends 'base.html.j2' %}{% block title %}t{% endblock %}{% block header %}{% endblock %}"
    made = rendered(monkeypatch, page + "{% block main %}<p class='card'>{{ value }}</p>{% endblock %}", value="<")
    assert "<main><p class='card'>&lt;</p></main>" in made
    # What only rollouts have is not in it.
    assert ".card { " in made
    assert ".lane { " not in made
