"""A store that cannot be written is told before anything is started, by a server that refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifake.places import open_place
from cluster import bucket
from cluster.launcher import Profile
from tests.object_store import BUCKET, SECRET, ObjectStore


def profile_of(store: ObjectStore, tmp_path: Path, secret: str, place: str) -> Profile:
    """Whose key is told by its secrets, and the rest by its environment."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f'# of the store\nexport AWS_SECRET_ACCESS_KEY="{secret}"\n')
    environment = {k: v for k, v in store.variables.items() if k != "AWS_SECRET_ACCESS_KEY"}
    return Profile(
        launcher="any", description="", store=place, environment=environment, secrets=str(secrets)
    )


def test_a_store_that_can_be_written_is_left_as_it_was(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    place = f"s3://{BUCKET}/probed"
    assert bucket.problems(profile_of(object_store, tmp_path, SECRET, place)) == []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.variables.items():
            patch.setenv(name, value)
        assert open_place(place).files() == []


def test_a_key_that_is_refused_is_told_without_it(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    profile = profile_of(object_store, tmp_path, f"{SECRET}-wrong", f"s3://{BUCKET}/probed")
    problems = bucket.problems(profile)
    assert [mistake.field for mistake in problems] == ["store"]
    assert "access denied" in str(problems[0])
    assert f"{SECRET}-wrong" not in str(problems[0])


def test_a_folder_is_the_nodes_own_matter(tmp_path: Path) -> None:
    profile = Profile(launcher="any", description="", store=str(tmp_path / "absent"))
    assert bucket.problems(profile) == []
