"""Arrays in, numbers out: what runs say about configs, and how sure that is.

Nothing here knows tables, runs or images but as arrays. A number that is undefined is None.
"""

from sweeps.statistics.effects import Level, Term, decompose, flip_p
from sweeps.statistics.images import (
    RESAMPLES,
    McNemar,
    TwoLevel,
    mcnemar,
    two_level,
)
from sweeps.statistics.paired import (
    EXACT_UP_TO,
    FLIPS,
    Paired,
    holm,
    paired,
    paired_each,
    seeds_to_reach,
    smallest_p,
)
from sweeps.statistics.ranking import (
    Ranking,
    cd_groups,
    paired_t_power,
    rank_stability,
    seeds_needed_each,
)
from sweeps.statistics.sequential import Look, Rule, follow, seeds_wanted
from sweeps.statistics.summary import (
    CONFIDENCE,
    INTERVAL,
    Summary,
    mean_interval,
    summarise,
    summarise_each,
    t_quantile,
)

__all__ = [
    "CONFIDENCE",
    "EXACT_UP_TO",
    "FLIPS",
    "INTERVAL",
    "RESAMPLES",
    "Level",
    "Look",
    "McNemar",
    "Paired",
    "Ranking",
    "Rule",
    "Summary",
    "Term",
    "TwoLevel",
    "cd_groups",
    "decompose",
    "flip_p",
    "follow",
    "holm",
    "mcnemar",
    "mean_interval",
    "paired",
    "paired_each",
    "paired_t_power",
    "rank_stability",
    "seeds_needed_each",
    "seeds_to_reach",
    "seeds_wanted",
    "smallest_p",
    "summarise",
    "summarise_each",
    "t_quantile",
    "two_level",
]
