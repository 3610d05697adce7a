"""The CIFAR-100 test set (Krizhevsky 2009), all photographs, from the Hugging Face parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cifake.data.parquet import class_names, image_bytes, is_parquet, iter_rows, parquet_files
from cifake.data.raw import REAL, RawImage
from cifake.errors import refuse


def read(path: Path) -> Iterator[RawImage]:
    """Yield the test images; content classes are the fine labels, coarse classes the coarse.

    Raises:
        InputError: the path holds no such parquet file, or a damaged one.
    """
    if not is_parquet(path):
        refuse(path, "must be a parquet file of the Hugging Face set uoft-cs/cifar100")
    for file in parquet_files(path):
        if "train" in file.name:
            continue
        names = class_names(file)
        if not {"fine_label", "coarse_label"} <= set(names):
            refuse(file, "lacks the names of fine_label and coarse_label in its metadata")
        columns = ("img", "fine_label", "coarse_label")
        for number, row in enumerate(iter_rows(file, columns)):
            for column in columns[1:]:
                if row[column] not in range(len(names[column])):
                    problem = f"row {number}: must be 0 to {len(names[column]) - 1}"
                    refuse(file, problem, field=column, value=row[column])
            blob, inner = image_bytes(file, number, row["img"])
            yield RawImage(
                name=f"{file.name}, row {number}",
                file_name=inner,
                split="test",
                label=REAL,
                blob=blob,
                content_class=names["fine_label"][row["fine_label"]],
                coarse_class=names["coarse_label"][row["coarse_label"]],
            )
