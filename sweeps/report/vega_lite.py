"""Specifications of charts in Vega-Lite, without their data.

Colours are variables of the page's style sheet, so that light and dark need no second drawing.
Config names are data, never part of an expression. `chosen` is the name that the reader picked in a
legend: all else is dimmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sweeps.report import search_frames
from sweeps.report.shown import MAX_COLOURED

Spec = dict[str, Any]


SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "triangle-down",
    "cross",
    "triangle-right",
    "triangle-left",
)
"""Points of the coloured configs, by place: a second sign beside colour."""


RACE_SIGNS = {
    **dict.fromkeys(("leads", "best", "tied", "undecided"), "circle"),
    **dict.fromkeys(("out", "no scores"), "M-1,-1L1,1M-1,1L1,-1"),
}
"""Signs of what a look says of a config."""


_HEIGHT = 280


FEW_POINTS = 20
"""Points along a curve up to which each is marked."""


SCROLLED_COLUMNS = 5
"""Columns beyond which a heat map is wider than a phone and scrolls in its frame."""


_NUMBERED_COLUMNS = 12
"""Columns up to which a heat map has room for numbers."""


_FEW_TICKS = 12
"""Epochs up to which each has a tick."""


_PLACES = list(range(MAX_COLOURED))


_DIMMED = {
    "condition": {"test": "chosen === null || datum.config === chosen", "value": 1},
    "value": 0.08,
}


_COLOUR = {
    "field": "place",
    "type": "nominal",
    "scale": {"domain": _PLACES, "range": [f"var(--c{place})" for place in _PLACES]},
    "legend": None,
}


_SHAPE = {
    "field": "place",
    "type": "nominal",
    "scale": {"domain": _PLACES, "range": list(SHAPES)},
    "legend": None,
}


def _interval(low: str, high: str, name: str) -> Spec:
    """Two columns as text."""
    low, high = f"datum.{low}", f"datum.{high}"
    return {
        "calculate": f"isValid({low}) && isValid({high}) ? "
        f"format({low}, '.4~g') + ' to ' + format({high}, '.4~g') : '–'",
        "as": name,
    }


INTERVAL = _interval("low", "high", "interval")


_TOLD_APART = {
    "calculate": "isValid(datum.mcnemar_runs) ? datum.mcnemar_different + ' of ' + "
    "datum.mcnemar_runs + ' pairs of runs (McNemar, p < 0.05)' : '–'",
    "as": "told_apart",
}


ROWS = {"labelLimit": 180, "domain": False, "ticks": False, "labelPadding": 8}


def epoch_axis(rows: pd.DataFrame) -> Spec:
    """An axis of epochs, with a tick at each where there are few."""
    found = sorted({int(epoch) for epoch in rows["epoch"]})
    ticks: Spec = {"tickMinStep": 1} if len(found) > _FEW_TICKS else {"values": found}
    return {"field": "epoch", "title": "epoch", "axis": {"format": "d", **ticks}}


def _room(rows: pd.DataFrame) -> list[float]:
    """The part of an axis that shows every mean, and as much of the intervals as is as wide."""
    low, high = float(rows["mean"].min()), float(rows["mean"].max())
    span = (high - low) or abs(high) / 10 or 1.0
    lowest, highest = rows["low"].min(), rows["high"].max()
    return [
        low if np.isnan(lowest) else max(float(lowest), low - span),
        high if np.isnan(highest) else min(float(highest), high + span),
    ]


def differences_spec(title: str, rows: int) -> Spec:
    """Differences of configs; full where significant."""
    tips = [
        tip("config"),
        tip("reference", "against"),
        tip("difference", title, ".4~g"),
        tip("interval", "95 % interval"),
        tip("total", "with other images"),
        tip("p", "p", ".3~g"),
        tip("p_holm", "p after Holm", ".3~g"),
        tip("n", "pairs of runs"),
        tip("told_apart", "told apart by images"),
    ]
    filled = {"condition": {"test": "datum.significant", "value": "var(--ink)"}}
    spec = _forest(title, rows, y="config", x="difference", tips=tips, fill=filled)
    spec["transform"] += [_interval("total_low", "total_high", "total"), _TOLD_APART]
    rule, interval, *points = spec["layer"]
    row, low = interval["encoding"]["y"], interval["encoding"]["x"]
    ends = [{**low, "field": field} for field in ("total_low", "total_high")]
    total = {"y": row, "x": ends[0], "x2": {"field": "total_high"}}
    tick = {"type": "tick", "thickness": 1, "size": 9, "color": "var(--ink)"}
    thin = [
        {"mark": {**interval["mark"], "strokeWidth": 0.7}, "encoding": total},
        *({"mark": tick, "encoding": {"y": row, "x": end}} for end in ends),
    ]
    spec["layer"] = [rule, *thin, interval, *points]
    return spec


def effects_spec(title: str, rows: int) -> Spec:
    """Effects of the values of parameters."""
    tips = [
        tip("term", "parameter"),
        tip("level", "value"),
        tip("effect", title, ".4~g"),
        tip("interval", "95 % interval"),
        tip("n", "runs"),
    ]
    return _forest(title, rows, y="name", x="effect", tips=tips, fill={})


def _forest(title: str, rows: int, *, y: str, x: str, tips: list[Spec], fill: Spec) -> Spec:
    """Dots with intervals beside a line at 0."""
    row = {"field": y, "type": "nominal", "sort": None, "title": None, "axis": ROWS}
    value = {"field": x, "type": "quantitative", "title": title}
    return chart(
        {
            "height": 24 * rows,
            "transform": [INTERVAL],
            "layer": [
                {
                    "data": {"values": [{}]},
                    "mark": {"type": "rule", "strokeDash": [3, 3], "color": "var(--soft)"},
                    "encoding": {"x": {"datum": 0, "type": "quantitative"}},
                },
                {
                    "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1.5},
                    "encoding": {"y": row, "x": {**value, "field": "low"}, "x2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "size": 70, "opacity": 1, "strokeWidth": 1.5},
                    "encoding": {
                        "y": row,
                        "x": value,
                        "stroke": {"value": "var(--ink)"},
                        "fill": {**fill, "value": "var(--paper)"},
                        "tooltip": tips,
                    },
                },
            ],
        }
    )


def curves(
    rows: pd.DataFrame, x: Spec, y_title: str, *, marked: bool, rule: float | None = None
) -> Spec:
    """Lines with bands; those of other configs thin and grey behind them."""
    x = {"type": "quantitative", **x}
    x["scale"] = {"zero": False, "nice": False, **x.get("scale", {})}
    coloured = rows[rows["place"] >= 0]["config"].nunique()
    scale = {"zero": False, "nice": True, "domain": _room(rows)}
    y = {"field": "mean", "type": "quantitative", "title": y_title, "scale": scale}
    tips = [
        tip("config"),
        tip(x["field"], x["title"], ".6~g"),
        tip("mean", y_title, ".4~g"),
        tip("interval", "95 % interval"),
        tip("n", "runs"),
    ]
    dot = {"type": "point", "filled": True, "size": 45 if marked else 90}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.place < 0"}],
            "mark": {"type": "line", "strokeWidth": 0.8, "color": "var(--faint)"},
            "encoding": {"x": x, "y": y, "detail": {"field": "config"}, "tooltip": tip("config")},
        },
        {
            "transform": [{"filter": "datum.place >= 0 && isValid(datum.low)"}],
            # Many bands one upon another hide more than they show.
            "mark": {
                "type": "area",
                "clip": True,
                "fillOpacity": min(0.16, 0.4 / max(coloured, 1)),
            },
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": _COLOUR,
                "opacity": _DIMMED,
            },
        },
        {
            "transform": [{"filter": "datum.place >= 0"}],
            "mark": {"type": "line", "strokeWidth": 1.6},
            "encoding": {"x": x, "y": y, "color": _COLOUR, "opacity": _DIMMED},
        },
        {
            "transform": [{"filter": "datum.place >= 0"}],
            "mark": dot,
            "encoding": {
                "x": x,
                "y": y,
                "color": _COLOUR,
                "shape": _SHAPE,
                # Points that are not marked are there for the pointer alone.
                "opacity": _DIMMED if marked else {"value": 0},
                "tooltip": tips,
            },
        },
    ]
    if (rows["place"] >= 0).all():
        del layers[0]
    if rule is not None:
        layers.insert(
            0,
            {
                "data": {"values": [{}]},
                "mark": {"type": "rule", "strokeDash": [3, 3], "color": "var(--soft)"},
                "encoding": {"x": {"datum": rule, "type": "quantitative"}},
            },
        )
    return chart({"transform": [INTERVAL], "layer": layers})


def reliability_spec() -> Spec:
    """Observed against predicted, beside the diagonal."""
    percent = {"domain": [0, 100], "nice": False}
    x = {
        "field": "predicted",
        "type": "quantitative",
        "title": "probability of REAL, %",
        "scale": percent,
    }
    y = {"field": "mean", "type": "quantitative", "title": "share of REAL, %", "scale": percent}
    same = {"color": _COLOUR, "opacity": _DIMMED}
    diagonal = {"values": [{"predicted": 0, "mean": 0}, {"predicted": 100, "mean": 100}]}
    tips = [
        tip("config"),
        tip("predicted", "mean probability, %", ".1f"),
        tip("mean", "share of REAL, %", ".1f"),
        tip("interval", "95 % interval"),
        tip("images", "images of a run", ",.0f"),
        tip("n", "runs with such images"),
    ]
    layers = [
        {
            "data": diagonal,
            "mark": {
                "type": "line",
                "strokeDash": [3, 3],
                "color": "var(--soft)",
                "strokeWidth": 1,
            },
            "encoding": {"x": x, "y": y},
        },
        {
            "mark": {"type": "rule", "strokeOpacity": 0.3},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **same},
        },
        {"mark": {"type": "line", "strokeWidth": 1.6}, "encoding": {"x": x, "y": y, **same}},
        {
            "mark": {"type": "point", "filled": True, "size": 45},
            "encoding": {"x": x, "y": y, "shape": _SHAPE, "tooltip": tips, **same},
        },
    ]
    return chart({"transform": [INTERVAL], "layer": layers}, height=300)


def heat_map(rows: pd.DataFrame, x: str, y: str, title: str, *, worse: bool = False) -> Spec:
    """Means as coloured cells, with numbers where there is room; bright is good."""
    columns = rows[x].nunique()
    low, high = rows["mean"].min(), rows["mean"].max()
    turned = columns > 4 or rows[x].str.len().max() > 14
    colour = {
        "field": "mean",
        "type": "quantitative",
        "title": title,
        "scale": {"scheme": "viridis", "domain": [low, high], "reverse": worse},
        "legend": {"orient": "top", "gradientLength": 160, "titleLimit": 220, "tickCount": 4},
    }
    bright = (
        f"datum.mean {'<' if worse else '>'} {low + (high - low) * (0.4 if worse else 0.6):.6g}"
    )
    tips = [
        tip(y),
        *([tip(x)] if x != y else []),
        tip("mean", title, ".2f"),
        tip("interval", "95 % interval"),
        tip("n", "runs"),
    ]
    layers: list[Spec] = [
        {
            "mark": {"type": "rect", "stroke": "var(--paper)"},
            "encoding": {"color": colour, "tooltip": tips},
        },
    ]
    if columns <= _NUMBERED_COLUMNS:
        ink = {"condition": {"test": bright, "value": "#000"}, "value": "#fff"}
        number = {"field": "mean", "type": "quantitative", "format": ".1f"}
        layers.append(
            {
                "mark": {"type": "text", "fontSize": 11, "tooltip": None},
                "encoding": {"text": number, "color": ink},
            }
        )
    spec = {
        "transform": [INTERVAL],
        "height": 24 * rows[y].nunique(),
        "encoding": {
            "x": {
                "field": x,
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {
                    **ROWS,
                    "labelAngle": -50 if turned else 0,
                    "labelLimit": 190,
                    "labelOverlap": False,
                },
            },
            "y": {"field": y, "type": "nominal", "sort": None, "title": None, "axis": ROWS},
        },
        "layer": layers,
    }
    if columns <= SCROLLED_COLUMNS:
        return chart(spec)
    return chart(spec, width={"step": 44 if columns <= _NUMBERED_COLUMNS else 26})


def heat_width(columns: int) -> int:
    """Width of a heat map with some columns, in em of the text."""
    return 46 if columns > SCROLLED_COLUMNS else 12 + 6 * columns


def bars(title: str, rows: int) -> Spec:
    """Shares as bars, a term a row."""
    return chart(
        {
            "height": 24 * rows,
            "encoding": {
                "y": {
                    "field": "term",
                    "type": "nominal",
                    "sort": None,
                    "title": None,
                    "axis": ROWS,
                },
                "x": {
                    "field": "share",
                    "type": "quantitative",
                    "title": title,
                    "scale": {"domain": [0, 100]},
                },
            },
            "layer": [
                {
                    "mark": {"type": "bar", "color": "var(--c0)", "height": 12},
                    "encoding": {"tooltip": [tip("term", ""), tip("share", title, ".1f")]},
                },
                {
                    "mark": {"type": "text", "align": "left", "dx": 5, "color": "var(--ink)"},
                    "encoding": {
                        "text": {"field": "share", "type": "quantitative", "format": ".1f"}
                    },
                },
            ],
        }
    )


def history_spec(metric: str) -> Spec:
    """Proposals as dots in their order, and the best so far as steps."""
    x = {
        "field": "number",
        "type": "quantitative",
        "title": "proposal",
        "axis": {"tickMinStep": 1, "format": "d"},
        "scale": {"nice": False, "zero": False, "padding": 12},
    }
    y = {"field": "value", "type": "quantitative", "title": metric, "scale": {"zero": False}}
    tips = [
        tip("number", "proposal"),
        tip("value", metric, ".4~g"),
        tip("low", "lowest seed", ".4~g"),
        tip("high", "highest seed", ".4~g"),
        tip("epoch", "epochs"),
        tip("proposal", "values"),
    ]
    hollow = {"condition": {"test": "datum.stopped", "value": "var(--paper)"}, "value": "var(--c0)"}
    return chart(
        {
            "layer": [
                {
                    "mark": {"type": "rule", "color": "var(--c0)", "strokeOpacity": 0.35},
                    "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
                },
                {
                    "transform": [{"filter": "isValid(datum.best)"}],
                    "mark": {
                        "type": "line",
                        "interpolate": "step-after",
                        "color": "var(--c1)",
                        "strokeWidth": 1.6,
                    },
                    "encoding": {"x": x, "y": {**y, "field": "best"}},
                },
                {
                    "mark": {"type": "point", "size": 50, "opacity": 1, "strokeWidth": 1.4},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "stroke": {"value": "var(--c0)"},
                        "fill": hollow,
                        "tooltip": tips,
                    },
                },
            ]
        }
    )


def parallel_spec(axes: Sequence[str], ticks: pd.DataFrame, *, worse: bool) -> Spec:
    """A line for each proposal across axes, which have their own ticks."""
    x = {
        "field": "axis",
        "type": "nominal",
        "sort": list(axes),
        "title": None,
        "scale": {"type": "point", "padding": 0.6},
        "axis": {
            "orient": "top",
            "labelAngle": 0,
            "domain": False,
            "ticks": False,
            "labelExpr": "replace(datum.label, /^.*[.]/, '')",
            "labelLimit": 110,
            "grid": True,
            "gridColor": "var(--soft)",
            "gridOpacity": 1,
        },
    }
    y = {
        "field": "position",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [search_frames.NOT_THERE - 0.05, 1.05], "nice": False},
    }
    opacity = {
        "field": "score",
        "type": "quantitative",
        "scale": {"range": [1, 0.08] if worse else [0.08, 1], "zero": False},
        "legend": None,
    }
    tips = [tip("proposal", "place among the best"), tip("axis", ""), tip("value", "value")]
    dash = {"condition": {"test": "datum.stopped", "value": [4, 3]}, "value": [1, 0]}
    told = {"values": ticks.to_dict("records")}
    return chart(
        {
            "layer": [
                {
                    "mark": {"type": "line", "color": "var(--c0)", "strokeWidth": 1.4},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "detail": {"field": "proposal"},
                        "opacity": opacity,
                        "strokeDash": dash,
                    },
                },
                {
                    "mark": {"type": "point", "size": 60, "opacity": 0, "filled": True},
                    "encoding": {"x": x, "y": y, "tooltip": tips},
                },
                *(
                    {
                        "data": told,
                        "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, **ink},
                        "encoding": {"x": x, "y": y, "text": {"field": "text"}},
                    }
                    # Letters on a ground of their own, so that lines do not strike them out.
                    for ink in (
                        {"color": "var(--paper)", "stroke": "var(--paper)", "strokeWidth": 4},
                        {"color": "var(--ink)"},
                    )
                ),
            ]
        },
        height=320,
        width={"step": 120} if len(axes) > 4 else "container",
    )


def race_spec(rows: pd.DataFrame) -> Spec:
    """A lane for each config as long as it was given seeds, with a sign at each look."""
    row = {"field": "config", "type": "nominal", "sort": None, "title": None, "axis": ROWS}
    looks = sorted({int(n) for n in rows["look"]})
    x = {
        "field": "look",
        "type": "quantitative",
        "title": "seeds",
        "axis": {"values": looks, "format": "d"},
        "scale": {"domain": [0, max(looks[-1], int(rows["seeds"].max()))], "nice": False},
    }
    last = [
        {"joinaggregate": [{"op": "max", "field": "look", "as": "last"}], "groupby": ["config"]}
    ]
    last += [{"filter": "datum.look === datum.last"}]
    grey = {"condition": {"test": "datum.place < 0", "value": "var(--faint)"}, **_COLOUR}
    signs = {
        "field": "state",
        "type": "nominal",
        "scale": {"domain": list(RACE_SIGNS), "range": list(RACE_SIGNS.values())},
        "legend": None,
    }
    full = "datum.state === 'leads' || datum.state === 'best'"
    tips = [
        tip("config"),
        tip("look", "seeds"),
        tip("state", "state"),
        tip("behind", "behind the leader", ".3~g"),
        tip("interval", "interval at all looks"),
        tip("pairs", "pairs of runs"),
    ]
    return chart(
        {
            "height": 26 * rows["config"].nunique(),
            "transform": [INTERVAL],
            "layer": [
                {
                    "transform": [*last, {"calculate": "0", "as": "none"}],
                    "mark": {"type": "rule", "strokeWidth": 3},
                    "encoding": {
                        "y": row,
                        "x": {**x, "field": "none"},
                        "x2": {"field": "seeds"},
                        "color": grey,
                        "opacity": _DIMMED,
                    },
                },
                {
                    "mark": {"type": "point", "size": 90, "opacity": 1, "strokeWidth": 1.8},
                    "encoding": {
                        "y": row,
                        "x": x,
                        "shape": signs,
                        "stroke": {"value": "var(--ink)"},
                        "fill": {
                            "condition": {"test": full, "value": "var(--ink)"},
                            "value": "var(--paper)",
                        },
                        "tooltip": tips,
                    },
                },
                {
                    "transform": last,
                    "mark": {"type": "text", "align": "left", "dx": 10, "color": "var(--ink)"},
                    "encoding": {"y": row, "x": x, "text": {"field": "state"}},
                },
            ],
        }
    )


def costs_spec(name: str) -> Spec:
    """Score against seconds, the front as steps."""
    x = {
        "field": "seconds",
        "type": "quantitative",
        "title": "training of one run, s",
        "scale": {"type": "log", "nice": False, "padding": 20},
        "axis": {"format": "~s", "tickCount": 6},
    }
    y = {"field": "mean", "type": "quantitative", "title": name, "scale": {"zero": False}}
    tips = [
        tip("config"),
        tip("epochs", "epochs"),
        tip("seconds", "seconds", ".3~g"),
        tip("parameters", "parameters", ",.0f"),
        tip("mean", name, ".4~g"),
        tip("interval", "95 % interval"),
        tip("n", "runs"),
    ]
    grey = {"condition": {"test": "datum.place < 0", "value": "var(--faint)"}, **_COLOUR}
    return chart(
        {
            "transform": [INTERVAL],
            "layer": [
                {
                    "transform": [{"filter": "datum.pareto"}],
                    "mark": {
                        "type": "line",
                        "interpolate": "step-after",
                        "color": "var(--soft)",
                        "strokeWidth": 1,
                    },
                    "encoding": {"x": x, "y": y, "order": {"field": "seconds"}},
                },
                {
                    "mark": {"type": "rule", "strokeOpacity": 0.4},
                    "encoding": {
                        "x": x,
                        "y": {**y, "field": "low"},
                        "y2": {"field": "high"},
                        "color": grey,
                        "opacity": _DIMMED,
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 70},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": grey,
                        "shape": _SHAPE,
                        "opacity": _DIMMED,
                        "tooltip": tips,
                    },
                },
            ],
        },
        height=320,
    )


def timeline_spec(lanes: int) -> Spec:
    """Bars from start to end, a lane a row."""
    tips = [
        tip("config"),
        tip("seeds", "seeds"),
        tip("status", "status"),
        tip("trained", "seconds of training", ",.0f"),
        {"field": "start", "type": "temporal", "title": "from", "format": "%Y-%m-%d %H:%M:%S"},
        {"field": "end", "type": "temporal", "title": "until", "format": "%Y-%m-%d %H:%M:%S"},
    ]
    failed = {
        "condition": {
            "test": "datum.status === 'failed' || datum.status === 'diverged'",
            "value": "var(--alarm)",
        },
        "value": "var(--paper)",
    }
    grey = {"condition": {"test": "datum.place < 0", "value": "var(--faint)"}, **_COLOUR}
    return chart(
        {
            "height": 20 * lanes,
            "mark": {"type": "bar", "height": 13, "strokeWidth": 1.5},
            "encoding": {
                "x": {"field": "start", "type": "temporal", "title": None},
                "x2": {"field": "end"},
                "y": {
                    "field": "lane",
                    "type": "ordinal",
                    "title": None,
                    "axis": {"domain": False, "ticks": False, "grid": False},
                },
                "fill": grey,
                "stroke": failed,
                "opacity": _DIMMED,
                "tooltip": tips,
            },
        }
    )


def gates_spec() -> Spec:
    """Gates by channel, REAL beside FAKE."""
    x = {"field": "channel", "type": "ordinal", "title": "channel", "axis": {"labelAngle": 0}}
    colour = {
        "field": "label",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["REAL", "FAKE"], "range": ["var(--c0)", "var(--c1)"]},
        "legend": {"orient": "top", "symbolType": "circle"},
    }
    shift = {"field": "label", "type": "nominal", "sort": ["REAL", "FAKE"]}
    y = {"field": "mean", "type": "quantitative", "title": "gate", "scale": {"zero": False}}
    tips = [
        tip("label", "images"),
        tip("channel", "channel"),
        tip("mean", "mean gate", ".3f"),
        tip("std", "standard deviation", ".3f"),
    ]
    low, high = "datum.mean - datum.std", "datum.mean + datum.std"
    return chart(
        {
            "transform": [{"calculate": low, "as": "low"}, {"calculate": high, "as": "high"}],
            "encoding": {"x": x, "xOffset": shift, "color": colour},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeOpacity": 0.5},
                    "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 36},
                    "encoding": {"y": y, "tooltip": tips},
                },
            ],
        },
        height=200,
    )


def chart(spec: Spec, *, height: int = _HEIGHT, width: Any = "container") -> Spec:
    """The parts that every chart has."""
    whole: Spec = {"width": width, "height": height, "params": [{"name": "chosen", "value": None}]}
    whole |= spec
    if width == "container":
        whole["autosize"] = {"type": "fit-x", "contains": "padding"}
    return whole


def tip(field: str, title: str | None = None, format_: str | None = None) -> Spec:
    """One line of a tooltip."""
    name = field if title is None else title
    return {"field": field, "title": name or " ", **({"format": format_} if format_ else {})}
