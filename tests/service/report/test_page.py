"""The page and its files."""

import json
import re
from pathlib import Path

import pytest

from agent.errors import Conflict
from service.report.page import dump, write_report
from tests.service.report.runs import run_view


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """Every chart is inside the page, and beside it as a file of the same bytes' number; nothing is fetched."""
    page = write_report(run_view().run, tmp_path / "made" / "report").read_text()
    images = re.findall(r'<img src="([^"]+)"', page)
    files = sorted((tmp_path / "made" / "report").glob("*.png"))
    assert len(images) == len(files) > 10
    assert all(image.startswith("data:image/png;base64,iVBOR") for image in images)
    assert "http" not in page
    assert "<script" not in page


def test_the_page_tells_how_the_run_went(tmp_path: Path) -> None:
    """First and last reward, what was published, the held-out comparison by language; text of the node is escaped."""
    page = " ".join(write_report(run_view().run, tmp_path).read_text().split())
    assert "<b>0.25 → 0.75</b>" in page
    assert "&lt;done&gt;" in page
    assert "languages = [&#39;de&#39;, &#39;pl&#39;], steps = 2, seed = 0" in page
    assert (
        '<tr><td>pl</td><td class="number">0.4</td> <td class="number">0.7</td> <td class="number">too little' in page
    )


def test_the_dump_has_the_run_and_its_series() -> None:
    """Steps and values as they are drawn, not finite ones left out."""
    content = json.loads(dump(run_view().run))
    assert content["run"]["id"] == "run_1"
    assert content["series"]["reward_mean"] == [[1, 0.25], [2, 0.75]]
    assert content["series"]["parts_by_language/fidelity/pl"] == [[1, 0.5], [2, 0.5]]


def test_a_run_without_steps_has_no_report(tmp_path: Path) -> None:
    """Nothing is written, and the message says where the run is."""
    with pytest.raises(Conflict, match="run_1 has taken no step that could be reported on; it is succeeded"):
        write_report(run_view().run.model_copy(update={"steps": []}), tmp_path / "report")
    assert not (tmp_path / "report").exists()
