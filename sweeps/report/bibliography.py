"""The sources that apply to what a sweep used, as BibTeX.

`references.bib` beside this file has every entry; what is listed below says when one applies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa

from sweeps.report.content import Content

FILE = "references.bib"
"""Name of the file beside a report, and of that beside this module."""

_ENTRY = re.compile(r"^@\w+\{(?P<key>[^,]+),\n.*?^\}\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Used:
    """What a sweep used."""

    settings: Mapping[str, frozenset[Any]]
    """Every value of every column of its runs."""

    datasets: frozenset[str]
    """Data sets that it trained on or evaluated, variants taken as the set they are made of."""

    compared: Mapping[str, int]
    """Of each column of `comparisons` and `ranking`, how many rows have a value."""

    searched: bool
    """Whether some runs are proposals of a search."""

    sampler: str | None
    """Of its search; null without one, and for several sweeps together."""

    scheduler: str | None
    methods: str
    """How effects were found, in lower case."""

    summarised: Mapping[str, int]
    """Of each column of `summary`, how many rows have a value."""

    explained: bool
    """Whether there are Grad-CAM sheets."""

    raced: bool
    """Whether seeds were added until the ranking was resolved."""

    def has(self, column: str, *values: Any) -> bool:
        """Whether some run has one of these values."""
        return not self.settings.get(column, frozenset()).isdisjoint(values)

    def any_of(self, *columns: str) -> bool:
        """Whether some comparison has a value in one of these columns."""
        return any(self.compared.get(column) for column in columns)


_Applies = Callable[[Used], bool]


def _setting(column: str, *values: Any) -> _Applies:
    return lambda used: used.has(column, *values)


def _compared(*columns: str) -> _Applies:
    return lambda used: used.any_of(*columns)


def _searched(*samplers: str) -> _Applies:
    return lambda used: used.sampler in samplers


def _stopped(scheduler: str) -> _Applies:
    return lambda used: used.scheduler == scheduler


def _stacked(used: Used) -> bool:
    return any(width > 1 for width in used.settings["stack_width"] if width is not None)


def _normalised(used: Used) -> bool:
    architectures = ("convnet", "resnet", "torchvision")
    return used.has("model", *architectures) or used.has("attention", "batchnorm", "srm")


def _smoothed(used: Used) -> bool:
    return any(share for share in used.settings["label_smoothing"] if share is not None)


APPLIES: Mapping[str, _Applies] = {
    "bird2024cifake": lambda used: "cifake" in used.datasets or used.has("model", "paper"),
    "krizhevsky2009learning": lambda used: bool(used.datasets & {"cifake", "cifar100"}),
    "rombach2022high": lambda used: "cifake" in used.datasets,
    "lee2019srm": _setting("attention", "srm"),
    "hu2018squeeze": _setting("attention", "se"),
    "wang2020eca": _setting("attention", "eca"),
    "woo2018cbam": _setting("attention", "cbam"),
    "ioffe2015batch": _normalised,
    "he2016deep": lambda used: (
        used.has("model", "resnet")
        or used.has("model_options.backbone", "resnet18", "resnet34", "resnet50")
    ),
    "huang2017densely": _setting("model_options.backbone", "densenet121"),
    "sandler2018mobilenetv2": _setting("model_options.backbone", "mobilenet_v2"),
    "tan2019efficientnet": _setting("model_options.backbone", "efficientnet_b0"),
    "liu2022convnet": _setting("model_options.backbone", "convnext_tiny"),
    "friedman2001greedy": _setting("model", "statistics"),
    "pedregosa2011scikit": _setting("model", "statistics"),
    "fridrich2012rich": _setting("input", "steg_srm", "steg_srm_learned"),
    "kingma2015adam": _setting("optimizer.name", "adam"),
    "loshchilov2019decoupled": _setting("optimizer.name", "adamw", "muon"),
    "jordan2024muon": _setting("optimizer.name", "muon"),
    "loshchilov2017sgdr": _setting("schedule.name", "cosine"),
    "smith2017super": _setting("schedule.name", "one_cycle"),
    "szegedy2016rethinking": _smoothed,
    "micikevicius2018mixed": _setting("execution.precision", "bf16", "fp16"),
    "paszke2019pytorch": lambda used: bool(used.settings["model"] - {"statistics"}),
    "wang2021horizontally": _stacked,
    "liaw2018tune": lambda used: bool(used.settings["model"]),
    "moritz2018ray": lambda used: bool(used.settings["model"]),
    "guo2017calibration": lambda used: bool(used.summarised.get("mean")),
    "student1908probable": lambda used: bool(used.summarised.get("low")) or used.any_of("low"),
    "efron1987better": lambda used: bool(used.summarised.get("bca_low")),
    "hesterberg2015teachers": lambda used: (
        bool(used.summarised.get("bca_low")) or used.any_of("p_best")
    ),
    "fisher1935design": _compared("p"),
    "holm1979simple": _compared("p_holm"),
    "mcnemar1947note": _compared("mcnemar_runs"),
    "agarwal2021deep": _compared("probability_of_improvement"),
    "cliff1993dominance": _compared("cliffs_delta"),
    "cohen1988statistical": _compared("cohens_d", "seeds_needed"),
    "kendall1938new": _compared("tau"),
    "piepho2004algorithm": _compared("group"),
    "lan1983discrete": lambda used: used.raced,
    "kim1987design": lambda used: used.raced,
    "jennison1991exact": lambda used: used.raced,
    "akiba2019optuna": lambda used: used.searched,
    "bergstra2011algorithms": _searched("tpe"),
    "bergstra2012random": _searched("random"),
    "snoek2012practical": _searched("gp"),
    "hansen2001completely": _searched("cma_es"),
    "deb2002fast": _searched("nsga2"),
    "li2020system": _stopped("asha"),
    "li2018hyperband": _stopped("hyperband"),
    "golovin2017google": _stopped("median"),
    "hutter2014efficient": lambda used: "fanova" in used.methods,
    "watanabe2023ped": lambda used: "ped-anova" in used.methods,
    "selvaraju2017grad": lambda used: used.explained,
    "kokhlikyan2020captum": lambda used: used.explained,
}
"""When each entry applies, by its key."""


@cache
def entries() -> Mapping[str, str]:
    """Every entry of the file that ships, by key, as it stands there."""
    text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return {match["key"]: match[0] for match in _ENTRY.finditer(text)}


def bibliography(content: Content) -> str:
    """The entries that apply to a report, in the order of the file that ships.

    ASCII alone, so that every BibTeX reads it.
    """
    found = used(content)
    every = entries()
    return "\n".join(every[key] for key, applies in APPLIES.items() if applies(found))


def used(content: Content) -> Used:
    """What the sweep of a report used, from its tables and its specification."""
    search = None if content.spec is None else content.spec.search
    scheduler = None if search is None else search.scheduler
    compared: dict[str, int] = {}
    for table in (content.comparisons, content.ranking):
        for name, count in _values(table):
            compared[name] = compared.get(name, 0) + count
    methods = {str(method) for method in content.effects["method"].to_pylist() if method}
    return Used(
        settings=_settings(content.runs),
        datasets=frozenset(_datasets(content)),
        compared=compared,
        searched="search" in content.cells["stage"].to_pylist(),
        sampler=None if search is None else search.sampler,
        scheduler=None if scheduler is None else scheduler.name,
        methods=" ".join(sorted(methods)).lower(),
        summarised=dict(_values(content.summary)),
        explained=content.explanations is not None and bool(content.explanations.sheets),
        raced=content.resolution is not None,
    )


def _settings(runs: pa.Table) -> dict[str, frozenset[Any]]:
    flat = [name for name in runs.column_names if not pa.types.is_list(runs[name].type)]
    return {name: frozenset(runs[name].unique().to_pylist()) for name in flat}


def _datasets(content: Content) -> Iterator[str]:
    names = {*content.runs["data.train"].to_pylist()}
    names |= {*content.evaluations["dataset"].unique().to_pylist()}
    for name in names - {None}:
        yield re.split("[@/]", name)[0]


def _values(table: pa.Table) -> Iterator[tuple[str, int]]:
    for name in table.column_names:
        yield name, len(table) - table[name].null_count
