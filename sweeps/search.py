"""The specification's search space as an Optuna study, driven by Ray Tune's OptunaSearch."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import TrialState

from cifake.places import LocalPlace, Place, open_place
from sweeps.spec import Dimension, Search, ordered_space

if TYPE_CHECKING:
    from ray.tune.search.optuna import OptunaSearch

JOURNAL = "study.journal"
"""File of a sweep that keeps its studies."""

_ABANDONED = "abandoned"

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # Optuna calls `group` experimental; it is what models a conditional space jointly.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True)


_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed=seed),
}


@dataclass(frozen=True)
class Space:
    """The search space as the function that Optuna calls; Tune pickles it with the searcher."""

    search: Search
    context: Mapping[str, Any]
    """Parameters that have one value in this sweep; conditions may look at them."""

    def __call__(self, trial: optuna.Trial) -> None:
        """Ask a trial for every dimension whose condition holds."""
        values: dict[str, Any] = dict(self.context)
        for path, dimension in ordered_space(self.search):
            if all(values.get(name) == value for name, value in dimension.when.items()):
                values[path] = _suggest(trial, path, dimension)


class ObjectJournal(BaseJournalBackend):
    """Optuna's journal in an object store, where no file can be appended to.

    Entries that are written together are one object, `000000.json` and so on. Of several writers of
    one number the store lets one through; the others read what it wrote and take the next.
    """

    def __init__(self, url: str) -> None:
        self.place = open_place(url)
        self.entries: list[dict[str, Any]] = []
        self.objects = 0

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Entries from a number on."""
        with contextlib.suppress(FileNotFoundError):
            while True:
                self.entries += json.loads(self.place.read(self._next()))
                self.objects += 1
        return self.entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries."""
        content = json.dumps(logs).encode()
        self.read_logs(0)
        while not self.place.create(self._next(), content):
            self.read_logs(0)

    def __reduce__(self) -> tuple[type[ObjectJournal], tuple[str]]:
        """It travels as its address: Tune pickles the searcher."""
        return ObjectJournal, (str(self.place),)

    def _next(self) -> str:
        return f"{self.objects:06}.json"


def open_storage(sweep: Place) -> JournalStorage:
    """The storage that keeps a sweep's studies over restarts."""
    if not isinstance(sweep, LocalPlace):
        return JournalStorage(ObjectJournal(str(sweep.at("study"))))
    sweep.path.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(sweep.path / JOURNAL)))


def has_storage(sweep: Place) -> bool:
    """Whether a study of the sweep was ever begun."""
    return JOURNAL in sweep.files() or "study" in sweep.folders()


def resume_abandoned(storage: JournalStorage, study_name: str) -> int:
    """Propose again what a driver that was killed left running, before anything new.

    Returns:
        How many trials there were. Their runs go on from where they stand.
    """
    if study_name not in optuna.get_all_study_names(storage):
        return 0
    study = optuna.load_study(study_name=study_name, storage=storage)
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in left:
        storage.set_trial_user_attr(trial._trial_id, _ABANDONED, True)  # noqa: SLF001, FBT003
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return len(left)


def finished_trials(storage: JournalStorage, study_name: str) -> list[dict[str, Any]]:
    """Every ended trial of a study: `number`, `params`, and `value`, null for a failed one."""
    if study_name not in optuna.get_all_study_names(storage):
        return []
    study = optuna.load_study(study_name=study_name, storage=storage)
    return [
        {"number": trial.number, "value": trial.value, "params": trial.params}
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and _ABANDONED not in trial.user_attrs
    ]


def make_search(
    search: Search, context: Mapping[str, Any], study_name: str, storage: JournalStorage
) -> OptunaSearch:
    """Ray Tune's searcher for one study."""
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(
        space=Space(search, context),
        metric=search.metric,
        mode=search.mode,
        sampler=_SAMPLERS[search.sampler](_sampler_seed(search, study_name, storage)),
        study_name=study_name,
        storage=storage,
    )


def _sampler_seed(search: Search, study_name: str, storage: JournalStorage) -> int:
    """A seed that depends on the trials made: a search that goes on must not start over."""
    made = 0
    if study_name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=study_name, storage=storage)
        made = len(study.get_trials(deepcopy=False))
    return int(np.random.SeedSequence([search.seed, made]).generate_state(1)[0])


def _suggest(trial: optuna.Trial, path: str, dimension: Dimension) -> Any:
    low, high = dimension.values[0], dimension.values[-1]
    match dimension.kinds[0]:
        case "uniform":
            return trial.suggest_float(path, low, high)
        case "log_uniform":
            return trial.suggest_float(path, low, high, log=True)
        case "int_uniform":
            return trial.suggest_int(path, low, high)
        case _:
            return trial.suggest_categorical(path, dimension.values)
