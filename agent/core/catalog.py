"""The unsigned list of what a repository holds: `metadata/catalog.json`.

    {"schema": 1, "packages": [<packages.describe(…)>, …], "highest": {"pump": 7}}

`highest` is the highest release number each model ever had: a number is never given twice, for
devices remember it, whatever has been removed since.

It says what there is; whether it may be installed is for the trusted metadata beside it to say.
"""

import json
from collections.abc import Iterable, Mapping

from agent.core.errors import RefusedError
from agent.core.packages import Package, describe, read
from agent.core.strict import read_object

SCHEMA = 1
FILE = "catalog.json"
CATALOG_BYTES_MAX = 8 * 1024 * 1024
PACKAGES_MAX = 10_000


def write(packages: Iterable[Package], highest: Mapping[str, int] | None = None) -> bytes:
    """The catalog of `packages`, by name and release; `read_all` is its inverse.

    `highest` is what was known before (`highest_in`); the packages raise it.
    """
    ordered = sorted(packages, key=lambda p: (p.ref.name, p.ref.release))
    numbers = dict(highest or {})
    for package in ordered:
        numbers[package.ref.name] = max(numbers.get(package.ref.name, 0), package.ref.release)
    document = {
        "schema": SCHEMA,
        "packages": [describe(p) for p in ordered],
        "highest": numbers,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def read_all(raw: bytes) -> list[Package]:
    """Every package a catalog lists, by name and release.

    Raises:
        RefusedError: it is no catalog, or one of its packages is none.
    """
    document = read_object(raw, "the catalog", bytes_max=CATALOG_BYTES_MAX)
    listed = document.get("packages")
    if (
        not isinstance(listed, list)
        or document.get("schema") != SCHEMA
        or len(listed) > PACKAGES_MAX
    ):
        raise RefusedError(f"the catalog is no table of packages with schema {SCHEMA}")
    packages = []
    for entry in listed:
        if not isinstance(entry, dict):
            raise RefusedError("the catalog lists a package that is no table")
        packages.append(read(entry))
    numbers = {(p.ref.name, p.ref.release) for p in packages}
    if len(numbers) != len(packages):
        raise RefusedError("the catalog lists a release twice")
    return sorted(packages, key=lambda p: (p.ref.name, p.ref.release))


def highest_in(raw: bytes) -> dict[str, int]:
    """The highest release number each model ever had.  Raises as `read_all`."""
    numbers = {p.ref.name: p.ref.release for p in read_all(raw)}
    listed = read_object(raw, "the catalog", bytes_max=CATALOG_BYTES_MAX).get("highest", {})
    if not isinstance(listed, dict) or not all(type(n) is int and n >= 0 for n in listed.values()):
        raise RefusedError("the catalog has highest numbers that are none")
    return {name: max(listed.get(name, 0), numbers.get(name, 0)) for name in {*listed, *numbers}}


def find(raw: bytes, name: str, release: int | None = None) -> Package:
    """Release `release` of model `name`; None: the newest.

    Raises:
        RefusedError: it is no catalog (400), or what was asked for is not in it (404).
    """
    return pick(read_all(raw), name, release)


def pick(packages: Iterable[Package], name: str, release: int | None = None) -> Package:
    """As `find`, over packages that have been read."""
    releases = {p.ref.release: p for p in packages if p.ref.name == name}
    if not releases:
        raise RefusedError(f"the repository has no model {name}", 404)
    if release is None:
        return releases[max(releases)]
    if release not in releases:
        there = ", ".join(str(r) for r in sorted(releases)[-5:])
        raise RefusedError(f"the repository has no {name}:{release}; it has {there}", 404)
    return releases[release]
