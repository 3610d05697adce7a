"""Where each data set can be downloaded, and in which form it is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Repository:
    """One place that offers a data set."""

    name: str
    """`owner/name` at the source."""

    lands_as: str
    """Name of the download in a folder of data sets: one of the set's `file_names`."""

    files: tuple[str, ...] = ()
    """Patterns of the files wanted, where single files can be asked for."""


REPOSITORIES: dict[str, dict[str, Repository]] = {
    "cifake": {
        # Kaggle is where the set was published and keeps the file names, which state the content
        # classes. The mirror on Hugging Face may lack the names, so it comes last.
        "kaggle": Repository(
            name="birdy654/cifake-real-and-ai-generated-synthetic-images",
            lands_as="cifake.zip",
        ),
        "github": Repository(
            name="jordan-bird/CIFAKE-Real-and-AI-Generated-Synthetic-Images",
            lands_as="cifake.zip",
        ),
        "huggingface": Repository(
            name="dragonintelligence/CIFAKE-image-dataset",
            lands_as="cifake",
            files=("*.parquet",),
        ),
    },
    "cifar100": {
        "huggingface": Repository(
            name="uoft-cs/cifar100",
            lands_as="cifar100-test.parquet",
            files=("cifar100/test-*.parquet",),
        ),
    },
}
"""From the name of a data set to its sources, the default first."""
