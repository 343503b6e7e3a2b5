"""Recall and speed of the near-duplicate search, on real data sets whose near-duplicates are known.

    python benchmarks/near_duplicates.py [--data ../shared/data] [--growth]

Kaggle's augmented set: every photograph's files should share a group, and no group should hold another photograph's.
PBC: all known duplicates and overlapping crops should share a group. `--growth` adds the time of each step for growing
parts of PBC.
"""

import argparse
import csv
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
from scipy.cluster.hierarchy import DisjointSet

from wbc_hf.data import KeyPoints, describe, read_image
from wbc_hf.data.near_duplicates import Link, candidates, link
from wbc_hf.evaluation import exact_limits, format_estimate

DATA = Path(__file__).parents[2] / "shared" / "data"
GROWTH = (1000, 4000)


def main() -> None:
    """Print quality and time; ends with status 1 where a group mixes photographs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--growth", action="store_true", help="time parts of PBC too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    mixed = report_kaggle(arguments.data)
    report_pbc(arguments.data, GROWTH if arguments.growth else ())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak resident memory {peak:.2f} GiB")
    sys.exit(mixed > 0)


def report_kaggle(data: Path) -> int:
    """Print the figures of the augmented set; return how many groups hold files of unrelated photographs."""
    photographs = same_photographs(data / "bccd" / "overlap_pairs.csv")
    with (data / "kaggle_augmented" / "source_map.csv").open(newline="") as file:
        source = {row["file_name"]: photographs.get(row["source"], row["source"]) for row in csv.DictReader(file)}
    files = sorted(source)
    found = timed("kaggle_augmented", [data / "kaggle_augmented" / name for name in files])
    part = parts(len(files), ((first, second) for first, second, *_ in found))
    of_photograph, of_group = defaultdict(list), defaultdict(set)
    for index, name in enumerate(files):
        of_photograph[source[name]].append(part[index])
        of_group[part[index]].add(source[name])
    together = sum(max(map(groups.count, set(groups))) for groups in of_photograph.values())
    mixed = sum(len(photographs) > 1 for photographs in of_group.values())
    share = format_estimate(together / len(files), exact_limits(together, len(files)), ".1%")
    print(f"  {len(of_photograph)} photographs: {share} of files in their photograph's group")
    print(f"  {len(of_group)} groups, {mixed} with files of another photograph")
    return mixed


def report_pbc(data: Path, sizes: Iterable[int]) -> None:
    files = sorted((data / "pbc").rglob("*.jpg"))
    spread = sorted(files, key=lambda path: path.stem.rpartition("_")[2])  # by number: classes mixed
    for size in sizes:
        timed(f"pbc, {size}", spread[:size])
    found = timed("pbc", files)
    part = parts(len(files), ((first, second) for first, second, *_ in found))
    index = {path.name: number for number, path in enumerate(files)}
    hits = defaultdict(list)
    with (data / "pbc" / "overlap_pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            hits[row["kind"]].append(part[index[row["a"]]] == part[index[row["b"]]])
    for kind, values in hits.items():
        share = format_estimate(sum(values) / len(values), exact_limits(sum(values), len(values)))
        print(f"  {kind}: {sum(values)} of {len(values)} found, {share}")
    print(f"  {len(found)} pairs in all, the fewest matches {min(matches for _, _, matches, _ in found)}")


def timed(name: str, files: Sequence[Path]) -> list[Link]:
    """Find the near-duplicates among files, printing the time of each step."""
    with ThreadPoolExecutor() as pool:
        times = [time.perf_counter()]
        key_points: list[KeyPoints] = list(pool.map(lambda path: describe(read_image(path)), files))
        times.append(time.perf_counter())
        pairs = candidates(key_points, pool)
        times.append(time.perf_counter())
        found = link(key_points, pool)
        times.append(time.perf_counter())
    described, searched, linked = (after - before for before, after in pairwise(times))
    print(
        f"{name}: {len(files)} images, {described + linked:.1f} s (describe {described:.1f}, candidates "
        f"{searched:.1f}, verify {linked - searched:.1f}); {len(pairs)} candidates, {len(found)} links",
        flush=True,
    )
    return found


def same_photographs(path: Path) -> dict[str, str]:
    """Map each photograph that overlaps others to the first of them."""
    with path.open(newline="") as file:
        pairs = [(row["a"], row["b"]) for row in csv.DictReader(file)]
    names = sorted({name for pair in pairs for name in pair})
    part = parts(len(names), ((names.index(a), names.index(b)) for a, b in pairs))
    return {name: names[root] for name, root in zip(names, part, strict=True)}


def parts(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` nodes the smallest node that links connect it with."""
    groups = DisjointSet(range(count))
    for first, second in links:
        groups.merge(first, second)
    smallest: dict[int, int] = {}
    return [smallest.setdefault(groups[node], node) for node in range(count)]


if __name__ == "__main__":
    main()
