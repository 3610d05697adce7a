"""Whatever a specification or an override holds, a mistake is all that comes of it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifake.errors import InputError, Mistake
from cifake.parameters import PARAMETERS
from sweeps import overrides, specfile
from sweeps.parse import parse
from sweeps.spec import Shape
from tests.sweeps.specs import OVERRIDDEN

_WORDS = st.sampled_from([*Shape.model_fields, *PARAMETERS, "seed", "optimizer", "when", "choice"])

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats()
    | st.sampled_from(["base", "srm", "none", "demo", "cifar100", "asha", "validation.auroc"])
    | st.text(max_size=5)
    | st.dates()
)

_CONTENT = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_WORDS | st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)

_SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("a") | _CONTENT,
        "question": _CONTENT,
        "data": st.dictionaries(
            st.sampled_from(["train", "validation", "evaluate", "train_images"]), _CONTENT
        ),
        "scientific": st.dictionaries(_WORDS, _CONTENT, max_size=3)
        | st.lists(st.dictionaries(_WORDS, _CONTENT, max_size=3), max_size=3)
        | _CONTENT,
        "nuisance": st.dictionaries(_WORDS, _CONTENT, max_size=2) | _CONTENT,
        "fixed": st.dictionaries(_WORDS, _CONTENT, max_size=3) | st.just({"epochs": 1}),
        "resources": _CONTENT,
        "compare": _CONTENT
        | st.fixed_dictionaries(
            {},
            optional={
                "metrics": st.lists(st.sampled_from(["loss", "auroc"])) | _CONTENT,
                "baseline": st.dictionaries(_WORDS, _CONTENT, max_size=2) | _CONTENT,
            },
        ),
        "search": st.fixed_dictionaries(
            {
                "trials": st.just(2) | _CONTENT,
                "space": st.dictionaries(
                    _WORDS,
                    st.dictionaries(
                        st.sampled_from(
                            ["uniform", "log_uniform", "int_uniform", "choice", "when"]
                        ),
                        _CONTENT,
                        max_size=2,
                    ),
                    max_size=3,
                ),
            }
        ),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=_SECTIONS | _CONTENT)
def test_any_content_parses_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_text(yaml.safe_dump(content))
    mistakes: tuple[Mistake, ...] = ()
    try:
        assert parse(specfile.read(path)).variants("f")
    except InputError as error:
        mistakes = error.mistakes or (Mistake(where="", problem=""),)
    assert all(mistake.where.startswith(str(path)) for mistake in mistakes)
    assert all(mistake.problem for mistake in mistakes)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_override_is_applied_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    if not path.exists():
        path.write_text(OVERRIDDEN)
    for override in (text, f"epochs={text}", f"data.train={text}", f"optimizer.lr={text}"):
        with contextlib.suppress(InputError):
            assert parse(overrides.apply(specfile.read(path), [override])).variants("f")
