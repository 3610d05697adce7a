"""The report in a browser while a sweep runs: who may ask, what is answered, and when it is new."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from playwright.sync_api import expect, sync_playwright
from rich.console import Console

from cifake.places import LocalPlace
from sweeps.reporting import report_sweep
from sweeps.search.dashboard import study_dashboard
from sweeps.search.storage import JOURNAL, open_storage
from sweeps.serve.app import Site, guarded
from sweeps.serve.command import (
    RAY_ADDRESS_VARIABLE,
    RAY_DASHBOARD,
    make_page,
    ray_dashboard_address,
    ray_dashboard_mode,
    ray_link,
    standing,
)
from sweeps.serve.live import LivePage, Standing
from sweeps.serve.outputs import read_output
from sweeps.serve.server import LOOPBACK, open_server
from sweeps.spec import Spec
from sweeps.store import Store
from tests.ports import free_port
from tests.sweeps.trials import planned, train

pytestmark = pytest.mark.heavy

Environment = dict[str, str]
Asked = Callable[..., tuple[int, Mapping[str, str], bytes]]

SPEC = """\
name: served
question: Which <rate>?
data: {train: demo, validation: 100, train_images: 200}
scientific: {optimizer.lr: [0.01], epochs: [1, 2]}
nuisance: {seed: 2}
"""


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def at(stamp: int) -> Standing:
    return Standing(stamp, cells=4, cells_done=stamp, by_status={"running": 2})


# The page


def test_a_page_is_made_again_when_runs_have_changed_and_not_else() -> None:
    stamps, made = [1, 1, 1, 2, 2], []
    looked = threading.Event()

    def look() -> Standing:
        if len(stamps) == 1:
            looked.set()
        return at(stamps[0] if len(stamps) == 1 else stamps.pop(0))

    def make() -> bytes:
        made.append(len(made))
        return b"page %d" % len(made)

    live = LivePage(look, make, every=0.01, page=b"page 0")
    assert (live.shown.version, live.shown.page) == (1, b"page 0"), "that of the last report"
    live.start()
    assert looked.wait(60)
    assert live.stop(60)
    assert (live.shown.version, live.shown.page) == (3, b"page 2")
    assert live.shown.standing == at(2)
    assert len(made) == 2


def test_who_asks_while_a_page_is_made_gets_the_last_one_at_once() -> None:
    begun, go = threading.Event(), threading.Event()

    def make() -> bytes:
        begun.set()
        assert go.wait(60)
        return b"new"

    live = LivePage(lambda: at(1), make, every=0.01, page=b"old")
    live.start()
    assert begun.wait(60)
    assert (live.shown.page, live.shown.making) == (b"old", True)
    assert not live.stop(0.01), "it is being made still"
    go.set()
    until(lambda: not live.shown.making)
    assert live.shown.page == b"new"


def test_a_page_that_cannot_be_made_is_told_and_the_last_one_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problems: list[Exception] = [OSError(5, "the store is away"), ValueError("two\nlines")]
    told: list[str] = []

    def make() -> bytes:
        told.append(live.shown.problem)
        if problems:
            raise problems.pop(0)
        return b"new"

    live = LivePage(lambda: at(1), make, every=0.01, page=b"old")
    live.start()
    until(lambda: live.shown.page == b"new")
    assert live.stop(60)
    assert live.shown.problem == ""
    assert len(told) == 3
    assert "the page could not be made" in caplog.text


def test_before_anything_of_a_sweep_is_there_the_page_is_waited_for() -> None:
    live = LivePage(lambda: None, lambda: b"never", every=0.01)
    live.start()
    time.sleep(0.1)
    assert live.stop(60)
    assert (live.shown.version, live.shown.standing, live.shown.page) == (0, None, b"")


# Who may ask, and for what


@contextlib.contextmanager
def answering(site: Site) -> Iterator[Asked]:
    """A server for as long as the block lasts, and how to ask it."""
    with open_server(guarded(site), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield partial(asked, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def asked(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's outputs in a store, with a secret beside the store."""
    folder = tmp_path / "store" / "sweeps" / "served"
    (folder / "figures").mkdir(parents=True)
    (folder / "summary.parquet").write_bytes(b"PAR1")
    (folder / "figures" / "curve.svg").write_text("<svg/>")
    (folder / "study.journal").write_text("{}")
    (folder / ".hidden.md").write_text("being written")
    (tmp_path / "store" / "store.json").write_text("{}")
    (tmp_path / "secret.json").write_text("secret")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "linked").symlink_to(tmp_path)
    return folder


@pytest.fixture
def ask(folder: Path) -> Iterator[Asked]:
    live = LivePage(lambda: at(1), lambda: b"", page=b"<p>the report")
    with answering(Site("served", "Which <rate>?", live, LocalPlace(folder))) as found:
        yield found


def test_the_page_and_the_outputs_are_handed_out(ask: Asked) -> None:
    status, headers, content = ask("/report.html")
    assert (status, content) == (200, b"<p>the report")
    assert headers["Content-Type"].startswith("text/html")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    status, headers, content = ask("/figures/curve.svg")
    assert (status, content, headers["Content-Type"]) == (200, b"<svg/>", "image/svg+xml")
    assert "sandbox" in headers["Content-Security-Policy"], "a drawing runs no script"
    assert ask("/summary.parquet")[2] == b"PAR1"


def test_around_the_page_stands_a_bar_whose_words_are_escaped(ask: Asked) -> None:
    status, headers, content = ask("/")
    assert status == 200
    assert b"served" in content
    assert b"<rate>" not in content
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name, kind in (("live.js", "text/javascript"), ("live.css", "text/css")):
        status, headers, _ = ask(f"/-/{name}")
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
    state = json.loads(ask("/-/state")[2])
    assert (state["version"], state["problem"], state["links"]) == (1, "", {})


@pytest.mark.parametrize(
    "path",
    [
        "/../../store.json",
        "/%2e%2e/%2e%2e/store.json",
        "/figures/../../../store.json",
        "/figures/..%2f..%2f..%2fstore.json",
        "//etc/passwd.json",
        "/%2Fetc/hostname.json",
        "/..%5c..%5cstore.json",
        "/link.json",
        "/linked/secret.json",
        "/study.journal",
        "/.hidden.md",
        "/figures",
        "/figures/",
        "/figures/curve.svg/x.svg",
        "/curve.svg%00.png",
        "/-/command.py",
        "/-/../command.py",
        "/-/",
    ],
)
def test_no_path_leads_out_of_the_outputs(ask: Asked, path: str) -> None:
    status, _, content = ask(path)
    assert status == (200 if path == "/-/" else 404)
    assert b"secret" not in content
    assert b"root:" not in content


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", ""],
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(ask: Asked, host: str) -> None:
    for path in ("/", "/report.html", "/-/state", "/summary.parquet"):
        status, _, content = ask(path, Host=host)
        assert status == 421
        assert b"127.0.0.1" in content


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:80"])
def test_a_name_of_this_machine_is_answered_through_any_tunnel(ask: Asked, host: str) -> None:
    assert ask("/-/state", Host=host)[0] == 200


def test_it_is_read_only(ask: Asked) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        status, headers, _ = ask("/report.html", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, content = ask("/report.html", "HEAD")
    assert (status, headers["Content-Length"], content) == (200, "13", b"")


def test_it_listens_on_the_loopback_alone() -> None:
    with open_server(guarded(lambda *_: [b""]), 0) as server:
        port = f"{server.server_port:04X}"
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            listening = [line.split()[1:4:2] for line in Path(table).read_text().splitlines()[1:]]
            found = [where for where, state in listening if where.endswith(port) and state == "0A"]
            wanted = [f"0100007F:{port}"] if table.endswith("tcp") else []
            assert [where for where in found if where.endswith(f":{port}")] == wanted


# In a browser


def test_the_page_is_refreshed_where_it_was_being_read(folder: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: `apt-get install chromium` brings it")
    stamp = 1
    live = LivePage(lambda: at(stamp), lambda: tall(f"page {stamp}"), every=0.01)
    live.start()
    site = Site("served", "", live, LocalPlace(folder), (lambda: {"Somewhere": "/else"},))
    with open_server(guarded(site), 0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="dark")
        problems: list[str] = []
        page.on("console", lambda each: problems.append(each.text))
        page.on("pageerror", lambda each: problems.append(str(each)))
        page.goto(f"http://localhost:{server.server_port}/")
        frame = page.frame_locator("#page")
        expect(frame.locator("h1")).to_have_text("page 1")
        expect(page.get_by_role("status")).to_contain_text("1 of 4 cells done; runs: 2 running")
        expect(page.get_by_role("link", name="Somewhere")).to_be_visible()
        frame.locator("html").evaluate("() => window.scrollTo(0, 500)")
        stamp = 2
        expect(frame.locator("h1")).to_have_text("page 2", timeout=30_000)
        assert frame.locator("html").evaluate("() => window.scrollY") == 500
        page.get_by_label("refresh by itself").uncheck()
        stamp = 3
        expect(page.get_by_role("status")).to_contain_text("3 of 4 cells done", timeout=30_000)
        assert frame.locator("h1").text_content() == "page 2", "it was asked to stay"
        browser.close()
        server.shutdown()
    assert live.stop(60)
    assert problems == []


def tall(title: str) -> bytes:
    text = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1>"
    return f"{text}<div style='height: 5000px'></div>".encode()


# Dashboards


def test_optunas_dashboard_shows_a_study_and_changes_nothing(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    live = LivePage(lambda: None, lambda: b"")
    site = Site("served", "", live, place, dashboard=study_dashboard(place))
    study = optuna.create_study(storage=open_storage(place, alone=True), study_name="rates")
    study.add_trial(optuna.trial.create_trial(params={}, distributions={}, value=0.5))
    before = (tmp_path / JOURNAL).read_bytes()
    with answering(site) as ask:
        assert b"Optuna" in ask("/dashboard/")[2]
        (found,) = json.loads(ask("/api/studies")[2])["study_summaries"]
        assert found["study_name"] == "rates"
        path = f"/api/studies/{found['study_id']}"
        assert len(json.loads(ask(path)[2])["trials"]) == 1
        assert ask(path, "DELETE")[0] == 405
        assert ask("/api/studies", Host="evil.example")[0] == 421
        optuna.create_study(storage=open_storage(place, alone=True), study_name="sizes")
        grown = (tmp_path / JOURNAL).read_bytes()
        assert len(json.loads(ask("/api/studies")[2])["study_summaries"]) == 2, "as it grows"
    assert grown.startswith(before)
    assert (tmp_path / JOURNAL).read_bytes() == grown


def test_no_dashboard_of_rays_is_claimed_where_none_answers(folder: Path) -> None:
    assert ray_dashboard_mode("http://127.0.0.1:9") is None
    live = LivePage(lambda: None, lambda: b"")
    with open_server(guarded(Site("served", "", live, LocalPlace(folder))), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        other = f"http://{LOOPBACK}:{server.server_port}"
        assert ray_dashboard_mode(other) is None, "another server"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, RAY_DASHBOARD),
        ("http://127.0.0.1:8300/", "http://127.0.0.1:8300"),
        ("https://ray.example", "https://ray.example"),
        ("auto", RAY_DASHBOARD),
        ("javascript:alert(1)", RAY_DASHBOARD),
    ],
)
def test_rays_dashboard_is_where_rays_own_commands_look_for_it(
    monkeypatch: pytest.MonkeyPatch, told: str | None, expected: str
) -> None:
    monkeypatch.delenv(RAY_ADDRESS_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(RAY_ADDRESS_VARIABLE, told)
    assert ray_dashboard_address() == expected


@pytest.fixture
def ray_dashboard(environment: Environment, tmp_path: Path) -> Iterator[str]:
    """Address of the dashboard of a Ray that asks for a token."""
    pytest.importorskip("aiohttp", reason="needs Ray's dashboard: pip install 'ray[default]'")
    token = tmp_path / "token"
    token.write_text("0" * 64)
    port = free_port()
    options = [
        "--head",
        "--block",
        f"--node-ip-address={LOOPBACK}",
        f"--port={free_port()}",
        "--include-dashboard=true",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={port}",
        f"--ray-client-server-port={free_port()}",
        "--disable-usage-stats",
        "--num-cpus=1",
        f"--object-store-memory={80 * 2**20}",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
        env={
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as started:
        url = f"http://{LOOPBACK}:{port}"
        try:
            until(lambda: ray_dashboard_mode(url) or started.poll() is not None, 180)
            yield url
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def test_the_page_leads_to_rays_dashboard_though_that_asks_for_a_token(
    ray_dashboard: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RAY_ADDRESS_VARIABLE, ray_dashboard)
    live = LivePage(lambda: at(1), lambda: b"", page=b"<p>the report")
    site = Site("served", "", live, LocalPlace(folder), (ray_link(),))
    name = "Ray dashboard (asks for its token)"
    with answering(site) as ask:
        assert json.loads(ask("/-/state")[2])["links"] == {name: ray_dashboard}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: `apt-get install chromium` brings it")
    with open_server(guarded(site), 0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        with context.expect_page() as opened:
            page.get_by_role("link", name=name).click()
        dashboard = opened.value
        asks = dashboard.get_by_placeholder("Enter your authentication token")
        expect(asks).to_be_visible(timeout=60_000)
        asks.fill("0" * 64)
        dashboard.get_by_role("button", name="Submit").click()
        expect(asks).not_to_be_visible(timeout=60_000)
        expect(dashboard).to_have_title(re.compile("Ray Dashboard"))
        browser.close()
        server.shutdown()


# On real runs


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may live."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket"))


def test_the_page_follows_the_runs_of_a_store(root: str, parse_text: Callable[..., Spec]) -> None:
    spec = parse_text(SPEC)
    store = Store.open(root, create=True)
    assert standing(spec, store) is None
    sweep = planned(spec, store)
    first = standing(spec, store)
    assert first is not None
    assert (first.cells, first.cells_done, first.by_status) == (4, 0, {"waiting": 2})
    train(sweep, store, 0)
    second = standing(spec, store)
    assert second is not None
    assert (second.cells_done, second.by_status) == (2, {"waiting": 1, "complete": 1})
    assert second.stamp != first.stamp
    assert standing(spec, store) == second, "nothing changed"
    written = store.sweep("served").files()
    assert b"Which &lt;rate&gt;?" in make_page(spec, store)
    assert store.sweep("served").files() == written, "it only reads"
    report_sweep(spec, store, Console(quiet=True))
    assert read_output(store.sweep("served"), "summary.parquet") is not None
    assert read_output(store.sweep("served"), "figures/thresholds.png") is not None
    assert read_output(store.sweep("served"), "missing.png") is None


def test_the_command_serves_until_it_is_interrupted(
    command: Callable[..., subprocess.CompletedProcess[str]],
    environment: Environment,
    tmp_path: Path,
    parse_text: Callable[..., Spec],
) -> None:
    spec, store = tmp_path / "spec.yaml", tmp_path / "store"
    parsed = parse_text(SPEC)
    opened = Store.open(str(store), create=True)
    sweep = planned(parsed, opened)
    train(sweep, opened, 0)
    port = free_port()
    arguments = ("serve", str(spec), "--store", str(store), "--port", str(port))
    with subprocess.Popen(
        [sys.executable, "-m", "sweeps", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/" in server.stdout.readline()

        def state() -> dict[str, Any]:
            return dict(json.loads(asked(port, "/-/state")[2]))

        until(lambda: state()["version"] >= 1)
        assert (state()["cells_done"], state()["problem"]) == (2, "")
        assert b"served" in asked(port, "/report.html")[2]
        before = state()["version"]
        train(sweep, opened, 1)
        until(lambda: state()["version"] > before)
        until(lambda: state()["cells_done"] == 4)
        second = command(*arguments)
        assert second.returncode == 2
        advice = "give another with --port, or 0 for any that is free"
        assert second.stderr == f"sweeps: error: port {port}: is in use; {advice}\n"
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert errors == ""


def test_a_folder_of_something_else_is_refused(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("")
    found = command("serve", "demo", "--store", tmp_path)
    assert found.returncode == 2
    assert "is no store" in found.stderr
    assert "Traceback" not in found.stderr
