"""The page in headless Chromium: at the width of a phone and of a desk, light and dark, sorted and printed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.output import further_tables
from ftbench.reporting.page import to_html
from ftbench.reporting.study import Study
from tests.reporting.test_page import study
from tests.reporting.test_probe_claims import everywhere, references

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
WIDTHS = (390, 1280)
#: goes into the page: notes every complaint, sorts a table both ways, and says what it saw
PROBE = """<script>
const seen = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  window.addEventListener(kind, e => seen.push(kind + ": " + (e.message || e.reason || e.violatedDirective)));
}
for (const level of ["error", "warn"]) { console[level] = (...a) => seen.push(level + ": " + a.join(" ")); }
window.addEventListener("load", () => {
  const table = [...document.querySelectorAll("table")].find(t => t.querySelector("td.mean"));
  const at = [...table.rows[0].cells].findIndex(c => c.textContent === "mean");
  const read = () => [...table.tBodies[0].rows].map(r => Number(r.cells[at].dataset.v));
  const button = table.rows[0].cells[at].querySelector("button");
  button.click(); const up = read(); button.click(); const down = read();
  const root = document.documentElement, svgs = [...document.querySelectorAll("svg")];
  const shade = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number);
  const ink = getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number);
  const out = {seen, up, down, shade, ink, over: root.scrollWidth - root.clientWidth,
    svgs: svgs.length, drawn: svgs.filter(s => s.getBoundingClientRect().height > 50).length,
    links: [...document.querySelectorAll("nav a")].filter(a => !document.querySelector(a.getAttribute("href"))).length,
    sort: table.rows[0].cells[at].getAttribute("aria-sort")};
  document.body.setAttribute("data-probe", JSON.stringify(out));
  parent.postMessage({width: window.innerWidth, out}, "*");
});
</script>"""
#: a window cannot be as narrow as a phone, a frame can
FRAMES = """<!DOCTYPE html><body><script>
const found = {};
window.addEventListener("message", e => {
  found[e.data.width] = e.data.out;
  document.body.setAttribute("data-found", JSON.stringify(found));
});
</script>%s</body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    probes = [*references("trec"), *everywhere("std", 0.0), *everywhere("r3f", 0.05)]
    made = Study([*study(folder).records, *probes])
    more = [table for some in further_tables(made.apart, (), "rich").values() for table in some]
    text = to_html(made, skipped=["a/result.json: not of ftbench"], more=more)
    (folder / "page.html").write_text(text, encoding="utf-8")
    return folder / "page.html"


def browse(page: Path, *options: str) -> str:
    assert CHROMIUM
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *flags, profile, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_renders_and_sorts_without_complaint(page: Path, scheme: str) -> None:
    text = page.read_text("utf-8").replace("</head>", PROBE + "</head>")
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
        for width in WIDTHS
    )
    framed = page.with_name("framed.html")
    framed.write_text(FRAMES % frames, encoding="utf-8")
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    dump = browse(framed, *dark, "--window-size=1700,1000", "--virtual-time-budget=20000", "--dump-dom")
    raw = re.search(r'<body data-found="([^"]*)"', dump)
    assert raw, dump[-500:]
    found: dict[str, Any] = json.loads(html.unescape(raw[1]))
    assert set(found) == {str(width) for width in WIDTHS}
    for width, said in found.items():
        assert said["seen"] == [], width
        assert said["svgs"] > 10 and said["drawn"] == said["svgs"]
        assert said["up"] == sorted(said["up"]) and said["down"] == sorted(said["up"], reverse=True)
        assert said["up"][0] < said["up"][-1] and said["sort"] == "descending"
        assert said["over"] <= 0, "the page itself never scrolls sideways"
        assert said["links"] == 0, "every link of the navigation leads somewhere"
        paper, ink = sum(said["shade"]), sum(said["ink"])
        assert (paper < 150 < 500 < ink) if scheme == "dark" else (paper > 700 and ink < 150)


def test_prints(page: Path) -> None:
    paper = page.with_name("page.pdf")
    browse(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    data = paper.read_bytes()
    assert data[:4] == b"%PDF" and len(re.findall(rb"/Type\s*/Page\b", data)) >= 3
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", "-layout", paper, "-"], capture_output=True, text=True, check=True).stdout
        assert "Differences to std" in text and "What is left in the encoder" in text
        assert "not of ftbench" in text, "what is folded away on the screen is open on paper"
