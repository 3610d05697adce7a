"""The tables of a sweep: what it asks for, and what is made of its runs."""

from __future__ import annotations

import pyarrow as pa

from cifake.tables.columns import (
    RESULTS_VERSION,
    STRING,
    SWEEPS_VERSION,
    WORD,
    Column,
    Table,
    key,
    required,
)


def _summarised(*labels: str) -> tuple[Column, ...]:
    """The columns that tell what a sweep's table of results is about."""
    return (
        required("sweep", WORD, "", "Name of the sweep."),
        required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
        *(required(label, STRING, "", "Scientific parameters, as JSON.") for label in labels),
        required(
            "compared_at",
            WORD,
            "",
            "A length; or `longest`, of each config its own, where those differ.",
        ),
        Column("epochs", pa.int32(), "epochs", "That length; null at `longest`."),
        *key("dataset", "split"),
        required("metric", WORD, "", "A score of the `evaluations` table."),
        required("unit", WORD, "", "Its unit."),
    )


TABLES = (
    Table(
        "cells",
        "one cell that a sweep asks for",
        ("label", "nuisance", "epochs", "seed"),
        (
            required("label", STRING, "", "Scientific parameters, as JSON."),
            required("nuisance", STRING, "", "Nuisance parameters but the seed, as JSON."),
            required("epochs", pa.int32(), "epochs", "Length asked for."),
            required("seed", pa.int64(), "", "Seed."),
            required("config_id", WORD, "", "Its config."),
            required("run_id", WORD, "", "Its run."),
            required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            required("role", WORD, "", "Its run's `end`, or a `milestone` of a longer one."),
        ),
        SWEEPS_VERSION,
    ),
    Table(
        "labels",
        "one image that a sweep was evaluated on",
        ("dataset", "split", "image_id"),
        (
            *key("dataset", "split"),
            required("image_id", pa.int32(), "", "Row of the image in its pack."),
            required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
        ),
        SWEEPS_VERSION,
    ),
    Table(
        "summary",
        "one metric of one config at one length, over seeds",
        ("stage", "label", "epochs", "dataset", "split", "metric"),
        (
            required("sweep", WORD, "", "Name of the sweep."),
            required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            required("label", STRING, "", "Scientific parameters, as JSON."),
            Column("config_id", WORD, "", "The config; null where nuisance values are averaged."),
            required("epochs", pa.int32(), "epochs", "Length asked for."),
            Column("role", WORD, "", "As in `cells`; null where its runs differ."),
            *key("dataset", "split"),
            required("metric", WORD, "", "A score of the `evaluations` table."),
            required("unit", WORD, "", "Its unit."),
            required(
                "n",
                pa.int32(),
                "runs",
                "Seeds with a value; of each the mean over nuisance values.",
            ),
            required("n_missing", pa.int32(), "runs", "Runs asked for without a value."),
            Column("mean", pa.float64(), "", "Mean over runs."),
            Column("std", pa.float64(), "", "Sample standard deviation; null for one run."),
            Column("low", pa.float64(), "", "Lower end of the 95 % interval of the mean."),
            Column("high", pa.float64(), "", "Upper end of the 95 % interval of the mean."),
            required("interval", WORD, "", "How the interval is made: Student's t."),
            Column(
                "bca_low",
                pa.float64(),
                "",
                "Of the BCa bootstrap interval of the mean, its ends √(n/(n − 1)) t/z times as far "
                "from it: Efron's own is too short for few runs. Null below 3.",
            ),
            Column("bca_high", pa.float64(), "", "Upper end of that."),
            Column("iqm", pa.float64(), "", "Interquartile mean: of the middle half of the runs."),
            Column("median", pa.float64(), "", "Median over runs."),
            Column("min", pa.float64(), "", "Smallest."),
            Column("max", pa.float64(), "", "Largest."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "comparisons",
        "two configs at one length, or at their longest, on one metric, paired by seed",
        ("stage", "compared_at", "dataset", "split", "metric", "label_a", "label_b"),
        (
            *_summarised("label_a", "label_b"),
            required("family", STRING, "", "What Holm's correction is over, in words."),
            required("comparisons", pa.int32(), "", "Comparisons of that family."),
            required(
                "n", pa.int32(), "pairs", "Seeds that both have, each with all nuisance values."
            ),
            required("n_missing", pa.int32(), "pairs", "Those that one of them lacks."),
            Column("mean_a", pa.float64(), "", "Mean of a over the pairs."),
            Column("mean_b", pa.float64(), "", "Mean of b over the pairs."),
            Column("difference", pa.float64(), "", "Mean of a − b over the pairs."),
            Column("std", pa.float64(), "", "Sample standard deviation of a − b."),
            Column("low", pa.float64(), "", "Lower end of the 95 % interval of the difference."),
            Column("high", pa.float64(), "", "Upper end of it; Student's t."),
            Column("total_low", pa.float64(), "", "The same over seeds and images (bootstrap)."),
            Column("total_high", pa.float64(), "", "Null where predictions were not compared."),
            Column("p", pa.float64(), "", "Of the sign-flip permutation test, two-sided."),
            Column("smallest_p", pa.float64(), "", "The least p that so many pairs can reach."),
            Column("p_holm", pa.float64(), "", "p, corrected for the family (Holm)."),
            Column("significant", pa.bool_(), "", "Whether that is below 0.05; null without p."),
            Column(
                "probability_of_improvement",
                pa.float64(),
                "",
                "That a run of a beats one of b; ½ a tie.",
            ),
            Column("cohens_d", pa.float64(), "", "Difference over its standard deviation."),
            Column("cliffs_delta", pa.float64(), "", "P(a > b) − P(a < b), of any two runs."),
            Column("seeds_needed", pa.int32(), "", "For 80 % power, p corrected; paired t test."),
            Column("mcnemar_runs", pa.int32(), "", "Pairs whose predictions were compared."),
            Column("mcnemar_different", pa.int32(), "", "Those that differ (McNemar, p < 0.05)."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "ranking",
        "one config among those of one length, or at their longest, on one metric",
        ("stage", "compared_at", "dataset", "split", "metric", "label"),
        (
            *_summarised("label"),
            required("n", pa.int32(), "runs", "Runs with a value."),
            Column("mean", pa.float64(), "", "Mean over runs."),
            Column("rank", pa.float64(), "", "1 is the best mean; ties share theirs."),
            Column("rank_low", pa.float64(), "", "Lower end of its 95 % bootstrap interval."),
            Column(
                "rank_high",
                pa.float64(),
                "",
                "Upper end of it; seeds are drawn again, and means spread as Student's t does.",
            ),
            Column(
                "p_best",
                pa.float64(),
                "share",
                "Such draws in which it is first; too sure where configs hardly differ.",
            ),
            Column(
                "group",
                STRING,
                "",
                "Letters: configs that share one are not told apart; null where not every pair was "
                "compared.",
            ),
            Column("behind", pa.float64(), "", "By how much it is behind the best mean."),
            Column(
                "seeds_needed",
                pa.int32(),
                "",
                "As there, from the best; if not compared, p as it is.",
            ),
            Column("tau", pa.float64(), "", "Kendall's, of resampled rankings with this; mean."),
            Column("tau_low", pa.float64(), "", "Its 2.5 % quantile, of the whole ranking."),
            Column("tau_high", pa.float64(), "", "Its 97.5 % quantile."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "effects",
        "what one parameter, or two together, make of one metric",
        ("stage", "dataset", "split", "metric", "kind", "term", "level"),
        (
            required("sweep", WORD, "", "Name of the sweep."),
            required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            *key("dataset", "split"),
            required("metric", WORD, "", "A score of `evaluations`, or a cost of a search."),
            required("unit", WORD, "", "Its unit."),
            required(
                "kind", WORD, "", "`main`, `interaction`, `seed`, `residual` or `importance`."
            ),
            required("term", STRING, "", "Parameter, or several joined by ` × `."),
            required(
                "level",
                STRING,
                "",
                "Values, as JSON; empty for the whole term. Of an importance, its study's.",
            ),
            required("n", pa.int32(), "", "Cells, or proposals of a search, that it rests on."),
            Column(
                "effect",
                pa.float64(),
                "",
                "Mean at this level minus that of all levels; of two parameters together, what is "
                "left of it beyond the sum of their own.",
            ),
            Column("low", pa.float64(), "", "Lower end of its 95 % interval."),
            Column("high", pa.float64(), "", "Upper end of it."),
            Column("df", pa.int32(), "", "Degrees of freedom; 0 if not told from other terms."),
            Column("sum_of_squares", pa.float64(), "", "Of the term, beside all others."),
            Column("share", pa.float64(), "share", "Of the variance, or of a search's importance."),
            Column(
                "p",
                pa.float64(),
                "",
                "Of the term, by flipping the signs of whole seeds' effects; of an importance, by "
                "shuffling the proposals' scores. Not corrected for the number of terms.",
            ),
            Column("method", STRING, "", "How it was found."),
            Column(
                "at_border",
                pa.bool_(),
                "",
                "Whether the best lies in the outer 5 % of a search's range, or is the least or "
                "greatest of three numbers or more; null where there is no order.",
            ),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "gates",
        "one channel at one site of an attention module, over the images of one label",
        ("run_id", "epoch", "dataset", "split", "site", "label", "channel"),
        (
            *key("run_id", "epoch", "dataset", "split"),
            required("site", WORD, "", "Where the attention module stands."),
            required("label", WORD, "", "REAL or FAKE: which images."),
            required("channel", pa.int32(), "", "Channel of the feature map, from 0."),
            required("n", pa.int64(), "images", "Images of that label."),
            Column("mean", pa.float64(), "", "Mean gate over them; null without an image."),
            Column("std", pa.float64(), "", "Sample standard deviation; null below two images."),
        ),
        RESULTS_VERSION,
    ),
)
