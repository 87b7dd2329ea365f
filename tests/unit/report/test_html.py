import re
from html.parser import HTMLParser
from typing import Any

from sftjob.report import report
from sftjob.report.document import Curve
from sftjob.report.plots import plots

CANARY = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"{{ 7*7 }}"


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_whatever_a_model_or_a_person_writes_stays_text(make_evaluation: Any) -> None:
    first = make_evaluation()
    answers = tuple(
        a.model_copy(update={"answer": CANARY, "prompt": CANARY, "id": f"{CANARY}{a.id}"}) for a in first.answers
    )
    made = report([make_evaluation(name=CANARY, base_model=CANARY, answers=answers, settings={CANARY: CANARY})])
    page = Page(made.html)
    assert page.open == []
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in made.html
    assert "{{ 7*7 }}" in made.html


def test_a_run_name_in_a_plot_stays_text(make_evaluation: Any) -> None:
    runs = [make_evaluation(name=CANARY), make_evaluation(name="$a_b$")]
    page = report(runs).html
    assert "script" not in Page(page).tags
    assert ">$a_b$</text>" in page[page.index("<svg") :]


def test_the_page_needs_nothing_from_elsewhere(make_evaluation: Any) -> None:
    page = report([make_evaluation()]).html
    assert not re.findall(r"https?:|url\((?!#)|@import|<link|src=", page)
    assert page.count("<svg") == 4
    assert "default-src 'none'" in page


def test_light_and_dark_share_the_plots(make_evaluation: Any) -> None:
    page = report([make_evaluation()]).html
    svg = page[page.index("<svg") : page.rindex("</svg>")]
    assert "var(--series-1)" in svg
    assert "<style" not in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert "prefers-color-scheme: dark" in page


def test_the_same_evaluation_gives_the_same_bytes(make_evaluation: Any) -> None:
    assert report([make_evaluation()]).html == report([make_evaluation()]).html


def test_ids_do_not_repeat(make_evaluation: Any) -> None:
    ids = [value for name, value in Page(report([make_evaluation()]).html).attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


def test_matches_are_marked(make_evaluation: Any) -> None:
    page = report([make_evaluation()]).html
    assert page.count("✓ matches") == 4
    assert page.count("✗ differs") == 4


def test_without_metrics_there_are_no_plots(make_evaluation: Any) -> None:
    assert "<svg" not in report([make_evaluation(metrics=())]).html


def test_what_the_machine_told_is_drawn(make_evaluation: Any) -> None:
    plain = make_evaluation()
    readings = {"gpu_memory_bytes": 3 * 2**30, "gpu_utilisation_percent": 97.0, "gpu_power_watts": 640.0}
    metrics = tuple(line.model_copy(update=readings) for line in plain.metrics)
    page = report([plain.model_copy(update={"metrics": metrics})]).html
    assert page.count("<svg") == 7
    assert "GPU memory in GiB" in page


def test_axes_are_read_without_a_calculator(make_evaluation: Any) -> None:
    """Shares begin at 0, and a perplexity that falls a lot keeps its end apart, in plain numbers."""
    plain = make_evaluation()
    losses = {10: 4.0, 20: 0.7, 30: 0.5, 40: 0.3}
    metrics = tuple(
        line.model_copy(update={"loss": losses[line.step], "host_memory_bytes": 30 * 2**30 + line.step * 2**20})
        for line in plain.metrics
    )
    drawn = {plot.title: set(re.findall(r">([^<>]+)</text>", plot.svg)) for plot in plots([Curve("run", metrics)])}
    assert {"2", "5", "50"} <= drawn["Perplexity"]
    assert "0" in drawn["Host memory in GiB"]


def test_memory_says_what_it_is(make_evaluation: Any) -> None:
    known = {"peak_memory_bytes": 3 * 2**29, "estimated_memory_bytes": 2**31}
    on_gpu = report([make_evaluation(**known, peak_memory_kind="device")]).markdown
    assert "| Peak memory (GPU tensors) | – | – | 1.50 GiB |" in on_gpu  # noqa: RUF001 - as it is written
    assert "| Estimated memory | – | – | 2.00 GiB |" in on_gpu  # noqa: RUF001
    on_cpu = report([make_evaluation(peak_memory_bytes=2**20, peak_memory_kind="resident")]).markdown
    assert "| Peak memory (CPU process) | – | – | 1 MiB |" in on_cpu  # noqa: RUF001
    assert "Estimated" not in on_cpu
