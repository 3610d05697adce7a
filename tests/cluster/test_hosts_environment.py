"""The project is brought to machines that have nothing of it, and installed there once."""

from __future__ import annotations

import sysconfig
import zipfile
from pathlib import Path

import pytest

from cluster import bundle
from tests.cluster.lab import NODES, Lab
from tests.cluster.namespaces import SHARED
from tests.cluster.one_machine import SWEEP, write_spec

pytestmark = [pytest.mark.heavy, pytest.mark.long, pytest.mark.timeout(1800)]

PACKAGES = "packages-1-py3-none-any.whl"


def write_packages(folder: Path) -> None:
    """Write a wheel whose installation adds this machine's packages, in place of an index.

    The machines have no network but their own, and torch has gigabytes.
    """
    site = Path("/mnt/venv", *Path(sysconfig.get_path("purelib")).parts[-3:])
    files = {
        "packages.pth": f"{site}\n",
        "packages-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: packages\nVersion: 1\n",
        "packages-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "packages-1.dist-info/RECORD"])
    with zipfile.ZipFile(folder / PACKAGES, "w") as wheel:
        for name, text in {**files, "packages-1.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)


def test_machines_without_the_project_get_it_once_and_run_it(lab: Lab, tmp_path: Path) -> None:
    write_packages(lab.network.folder)
    lab.write_profile(
        ["n1", "n2"],
        python=None,
        base_python="/mnt/venv/bin/python",
        pip=["--no-index", "--no-deps", f"{SHARED}/{PACKAGES}"],
    )
    lab.up()
    find = (
        f"cd {NODES}/lab/* && ls -d env-* && stat -c %Y env-*/ready && ls env-*/lib/*/site-packages"
    )
    first = lab.network.ssh("n2", find).stdout
    assert first.startswith(f"env-{bundle.digest()}\n")
    assert {"cifake", "sweeps", "cluster", "packages.pth"} <= set(first.split())
    lines = lab.network.ssh("n2", "cat /proc/*/cmdline").stdout
    assert f"{NODES}/lab/{lab.name('n2')}/env-{bundle.digest()}/bin/python" in lines
    assert "/mnt/code" not in lines

    lab.up()
    assert lab.network.ssh("n2", find).stdout == first

    store = lab.url("brought")
    assert lab.submit(write_spec(tmp_path, epochs=2, seeds=2), store).wait(600) == 0, lab.log(store)
    assert f"report: {store}/sweeps/{SWEEP}/report.md" in lab.log(store)
