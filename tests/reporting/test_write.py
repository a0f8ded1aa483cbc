"""The three files: whole, equal to each other, self-contained, and proof against hostile names."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sdcompress.errors import OutputExistsError, StorageError
from sdcompress.evaluation.paired import pack
from sdcompress.reporting.render import html, markdown
from sdcompress.reporting.report.build import build
from sdcompress.reporting.report.page import report_page
from sdcompress.reporting.report.plots import _exit_curve, _points
from sdcompress.reporting.write import check_ready, files, write
from sdcompress.schema.explain import Explanation
from sdcompress.schema.report import BenchReport, Evaluation, Report

HOSTILE = "<script>alert(1)</script> [x](javascript:0) | `$Ünïcode$` 神"
VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture
def report(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport]) -> Report:
    lines = [{"epoch": e, "step": e * 10, "loss/ce": 1 / e, "val_accuracy/final": 1 - 0.5 / e} for e in (1, 2, 3)]
    return build(
        title="title", command="sdcompress run x", artifacts=folders, evaluations=evaluations, benches=benches,
        recipe={"name": "x"}, training={"byot": lines},
    )  # fmt: skip


def page(report: Report) -> str:
    return html(report_page(report))


def text_of(report: Report) -> str:
    return markdown(report_page(report))


class Reader(HTMLParser):
    """The text, the tags and every address of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.ids, self.addresses = "", set[str](), list[str](), list[str]()
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_json_is_the_report(report: Report, tmp_path: Path) -> None:
    html = write(report, tmp_path / "out")
    assert html == tmp_path / "out" / "report.html"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files(Report))
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report


def test_a_picture_of_another_origin_is_not_replaced(report: Report, tmp_path: Path) -> None:
    (tmp_path / "decisions.png").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"already holds decisions\.png"):
        write(report, tmp_path)
    assert (tmp_path / "decisions.png").read_bytes() == b"mine"


def test_the_page_is_self_contained_and_small(report: Report) -> None:
    text = page(report)
    reader = Reader(text)
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "img", "object"} & reader.tags
    assert all(address.startswith("#") and address[1:] in reader.ids for address in reader.addresses)
    assert len(set(reader.ids)) == len(reader.ids)
    assert len(text.encode()) < 400_000


def test_page_and_markdown_show_the_figures_of_the_json(report: Report) -> None:
    chain = report.rows[1]
    assert chain.mean_ms is not None
    assert chain.speedup is not None
    assert chain.test_metric is not None
    wanted = [f"{chain.mean_ms:.2f} ms", f"{chain.speedup:.2f}×", f"{chain.test_metric:.2%}".replace("%", " %")]
    for text in (Reader(page(report)).text, text_of(report)):
        for figure in [
            *wanted,
            "n/a (needs 662 calls)",
            "one thread",
            "2.25 to 2.33",
            "sdcompress run x",
            "validation",
        ]:
            assert figure in text


def test_every_plot_is_drawn_with_its_names_as_text(report: Report) -> None:
    text = Reader(page(report)).text
    for title in (
        "Accuracy against latency",
        "Distribution of latency",
        "Where samples exit",
        "Exits of chain, test split",
    ):
        assert title in text
    assert "Validation accuracy while training byot" in text
    assert page(report).count('role="img"') == 6
    assert "#0102" not in page(report)  # every stand-in colour became a variable


def test_the_main_table_is_narrow_and_every_column_is_still_there(report: Report) -> None:
    """On a phone its rows become blocks, whose lines are named by the columns."""
    page_ = report_page(report)
    assert page_.summary.columns == (
        "artifact", "test accuracy", "run", "end to end", "speed-up of the run", "speed-up end to end",
    )  # fmt: skip
    assert page_.summary.rows[1][2:] == ("1.75 ms", "2.25 ms", "2.29× [2.25, 2.33]", "2.00× [1.97, 2.03]")
    what, times = page_.details[:2]
    assert what.columns == (
        "artifact", "layout", "guaranteed drop", "validation accuracy", "MACs", "parameters", "ONNX size",
    )  # fmt: skip
    assert times.columns == ("artifact", "preparation, mean", "run, mean", "run, p50", "run, p99", "speed-up (p50)")
    text = html(page_)
    assert 'data-label="speed-up end to end"' in text
    assert text.count("<details") == len(page_.details) + 1  # and the recipe


def test_forced_exits_stand_at_their_means_on_an_axis_of_means(report: Report) -> None:
    chain = next(point for point in _points(report) if point.row.name == "chain")
    axes = Figure().subplots()
    _exit_curve(axes, chain)
    assert axes.lines[0].get_xdata().tolist() == [1.05, 4.2]
    old = tuple(timing.model_copy(update={"forced_mean_ms": None}) for timing in chain.record.exits)
    record = chain.record.model_copy(update={"exits": old})
    assert _exit_curve(axes, replace(chain, record=record)) == []  # an earlier version's medians are left out


def test_hostile_names_are_text_and_nothing_else(report: Report) -> None:
    text = report.model_dump_json().replace('"chain"', '"' + HOSTILE + '"')
    hostile = Report.model_validate_json(text).model_copy(update={"title": HOSTILE, "command": f"```\n{HOSTILE}"})
    html, plain = page(hostile), text_of(hostile)
    reader = Reader(html)
    assert "script" not in reader.tags
    assert reader.text.count(HOSTILE) >= 4
    outside = plain.replace(f"````\n```\n{HOSTILE}\n````", "")
    assert outside != plain
    assert "<script>" not in outside.replace("\\<script\\>", "")
    assert "](javascript" not in outside.replace("\\](javascript", "")
    heading, row = (
        next(line for line in outside.splitlines() if line.startswith(start)) for start in ("| artifact", "| \\<script")
    )
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", heading))


ACTING = "\x1b]0;owned\x07\x1b[2J\x9b1A\u202egnp.exe\nfaster"


def test_no_text_of_the_page_acts_or_is_endless_and_the_json_keeps_it(report: Report, tmp_path: Path) -> None:
    text = report.model_dump_json().replace('"chain"', json.dumps(ACTING)).replace('"exit1"', json.dumps("x" * 10**6))
    hostile = Report.model_validate_json(text)
    write(hostile, tmp_path)
    assert Report.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8")) == hostile
    for name in ("report.html", "report.md"):
        drawn = (tmp_path / name).read_text(encoding="utf-8")
        assert all(character == "\n" or not unicodedata.category(character).startswith("C") for character in drawn)
        assert "gnp.exe" in drawn
        assert len(drawn) < 500_000
        assert "faster" not in [line.strip() for line in drawn.splitlines()]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_losses_of_many_samples_are_not_cut_as_names_are(report: Report, tmp_path: Path, scale: float) -> None:
    losses = np.float32([scale, 0] * 5_000)  # as bits and as float32
    one = report.evaluations[0].model_copy(update={"losses": pack(losses), "targets_sha256": "0" * 64})
    with_losses = report.model_copy(update={"evaluations": (one, *report.evaluations[1:])})
    write(with_losses, tmp_path)
    assert Report.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8")) == with_losses


def test_a_report_of_nothing_but_a_row(folders: dict[str, Path], tmp_path: Path) -> None:
    bare = build(title="t", command="c", artifacts={"whole": folders["whole"]})
    text = Reader(write(bare, tmp_path / "out").read_text(encoding="utf-8")).text
    assert "whole was not evaluated." in text
    assert "Accuracy against latency" not in text


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_network_that_is_right_on_every_image_or_on_none(report: Report, right: float) -> None:
    """359 images are one of the numbers at which the end of Wilson's interval rounds to the wrong side."""
    exits = tuple(exit_.model_copy(update={"metric": right}) for exit_ in report.evaluations[0].exits)
    evaluations = (report.evaluations[0].model_copy(update={"exits": exits, "samples": 359}), *report.evaluations[1:])
    rows = (report.rows[0].model_copy(update={"test_metric": right}), *report.rows[1:])
    text = Reader(page(report.model_copy(update={"evaluations": evaluations, "rows": rows}))).text
    assert f"{right * 100:.2f} %" in text


def test_many_points_stay_small(report: Report) -> None:
    (bench,) = report.benches
    raw = tuple(np.random.default_rng(0).lognormal(size=30_000).tolist())
    many = bench.model_copy(update={"records": tuple(r.model_copy(update={"raw_ms": raw}) for r in bench.records)})
    lines = tuple({"epoch": float(e), **{f"loss/{k}": 1.0 + e for k in range(9)}} for e in range(1, 3001))
    assert len(page(report.model_copy(update={"benches": (many,), "training": {"a": lines}}))) < 400_000


def test_an_earlier_report_is_replaced_only_when_asked(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path)
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"report\.json"):
        write(report, tmp_path)
    write(report.model_copy(update={"title": "second"}), tmp_path, overwrite=True)
    assert "second" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "mine.txt").exists()


def test_a_file_in_the_place_of_the_folder(report: Report, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="is a file"):
        write(report, tmp_path / "out", overwrite=True)


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_ready(Explanation, tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"'.*/file' is a file"):
        check_ready(Explanation, tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)  # of root too
    with pytest.raises(StorageError, match=f"'{re.escape(str(tmp_path))}' is read-only"):
        check_ready(Explanation, tmp_path / "new" / "folder")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="is read-only"):
        check_ready(Explanation, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
