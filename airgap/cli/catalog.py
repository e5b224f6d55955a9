"""``airgap catalog``: its commands list, images and query."""

from __future__ import annotations

import csv
import functools
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from airgap.browser import open_catalog
from airgap.catalog.select import PackageChoice
from airgap.cli import options, report
from airgap.cli.progress import size
from airgap.cli.running import shown_progress
from airgap.errors import HOLES, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from airgap.browser import CatalogListing, ImageListing, OpenCatalog
    from airgap.catalog.listing import ListedPackage
    from airgap.catalog.query import Answer, Value
    from airgap.cli.running import Stop
    from airgap.registry.access import Access


@click.group("catalog", short_help="Look into a catalog: packages, images, SQL.")
def catalog_command() -> None:
    """Look into a catalog of any format, wherever it is.

    SOURCE is an archive, a database file, a directory that holds a catalog, or the reference of
    a catalog image; what is on disk comes first. None of the catalog's images is asked for.

    \b
    Examples:
      airgap catalog list quay.io/my/catalog:v1
      airgap catalog images olm.tar --package etcd
      airgap catalog query bundles.db "select * from package"
    """


@dataclass(frozen=True)
class _Source:
    """Where the catalog is, how to get there, and what is said on the way."""

    name: str
    catalog: str | None
    platform: str | None
    access: Access
    stop: Stop
    quiet: bool
    verbose: bool

    @contextmanager
    def opened(self) -> Iterator[OpenCatalog]:
        """Open the catalog."""
        with (
            shown_progress(self.quiet) as progress,
            open_catalog(
                self.name, catalog=self.catalog, access=self.access, platform=self.platform,
                progress=progress, stop=self.stop,
            ) as catalog,
        ):  # fmt: skip
            yield catalog

    def warn(
        self, unreadable: Iterable[str], problems: Iterable[str], remarks: Iterable[str] = ()
    ) -> None:
        """Say on stderr what is missing in a result, and if wanted what else was met."""
        for line in remarks:
            report.echo(f"note: {printable(line, 2000)}", err=True)
        for line in problems if self.verbose else ():
            report.echo(f"odd: {printable(line, 2000)}", err=True)
        for line in unreadable:
            report.echo(f"unreadable: {printable(line, 2000)}", err=True)


_SOURCE_OPTIONS = (
    click.option(
        "--catalog", metavar="REFERENCE", help="Which catalog, of an archive with several."
    ),
    options.index_filter_option,
    options.registry_options,
    options.registries_conf_option,
    options.verbosity_options,
)


def _with_source(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command its source, as the first argument, from SOURCE and what belongs to it.

    The command names SOURCE itself, in the place it has among its arguments.
    """

    @functools.wraps(command)
    def given(
        source: str,
        catalog: str | None,
        platform: str,
        registry_config: Path | None,
        insecure: bool,
        certificate_authority: Path | None,
        max_per_registry: int,
        registries_conf: Path | None,
        quiet: bool,
        verbose: int,
        **others: Any,
    ) -> int:
        options.set_verbosity(verbose)
        context = click.get_current_context()
        chosen = context.get_parameter_source("platform") is not ParameterSource.DEFAULT
        access = options.access_from(
            registry_config, insecure, certificate_authority, max_per_registry, registries_conf
        )
        where = _Source(
            source, catalog, platform if chosen else None, access, context.obj, quiet, verbose > 0
        )
        return command(where, **others)

    for option in reversed(_SOURCE_OPTIONS):
        given = option(given)
    return given


@catalog_command.command("list", short_help="List packages, channels and versions.")
@click.argument("source")
@click.option("--package", "packages", multiple=True, help="Only this one; may be repeated.")
@click.option("--channel", "channels", multiple=True, help="Only this one; may be repeated.")
@options.output_option
@_with_source
def list_command(
    source: _Source, packages: tuple[str, ...], channels: tuple[str, ...], output_format: str
) -> int:
    """List the packages that a catalog offers.

    SOURCE is an archive, a database file, a directory that holds a catalog, or a catalog image.
    With --package their channels are listed too, with --channel every version in these. JSON
    always has everything. Sizes are known of an archive's images alone.

    \b
    Examples:
      airgap catalog list olm.tar
      airgap catalog list quay.io/my/catalog:v1 --package etcd
      airgap catalog list bundles.db --package etcd --channel alpha
      airgap catalog list ./configs --output json
    """
    with source.opened() as catalog:
        listing = catalog.list_packages(packages, channels)
    if output_format == "json":
        report.echo_json("catalog list", listing.exit_status, listing)
    else:
        _print_packages(listing)
        for package in listing.packages if packages or channels else ():
            _print_channels(package, versions=bool(channels))
    source.warn(listing.unreadable, listing.problems)
    return listing.exit_status


@catalog_command.command("images", short_help="List images and the bundles that want them.")
@click.argument("source")
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="NAME[:CHANNEL[,...]][@RANGE]",
    help="Only what this part of the catalog wants, as for `airgap export`; may be repeated.",
)
@options.output_option
@_with_source
def images_command(source: _Source, packages: tuple[str, ...], output_format: str) -> int:
    """List the images that a catalog wants, and below each the bundles that want it.

    SOURCE is an archive, a database file, a directory that holds a catalog, or a catalog image.
    Lines that are not indented are images.

    \b
    Examples:
      airgap catalog images quay.io/my/catalog:v1
      airgap catalog images olm.tar --package etcd:alpha@head
      airgap catalog images ./manifests --package 'etcd@>=0.9,<1' --output json
    """
    choices = [PackageChoice.parse(text) for text in packages]
    with source.opened() as catalog:
        listing = catalog.list_images(choices)
    if output_format == "json":
        report.echo_json("catalog images", listing.exit_status, listing)
    else:
        _print_images(listing)
    source.warn(listing.unreadable, listing.problems, listing.remarks)
    return listing.exit_status


@catalog_command.command("query", short_help="Ask a catalog in SQL.")
@click.argument("source")
@click.argument("sql")
@click.option(
    "--output",
    "output_format",
    type=click.Choice(["lines", "table", "json", "csv"]),
    default="lines",
    show_default=True,
    help="How rows are printed; lines as `sqlite3 -line` does.",
)
@_with_source
def query_command(source: _Source, sql: str, output_format: str) -> int:
    """Ask a catalog of any format in SQL, over the tables of operator-registry's databases.

    SOURCE is an archive, a database file, a directory that holds a catalog, or a catalog image;
    SQL is one SELECT. Nothing is changed, and what it may take up is bounded.

    \b
    Examples:
      airgap catalog query quay.io/my/catalog:v1 "select name, default_channel from package"
      airgap catalog query olm.tar "select * from channel" --output table
      airgap catalog query ./manifests "select distinct image from related_image" --output csv
    """
    with source.opened() as catalog:
        answer = catalog.query(sql, stop=source.stop)
        found = catalog.found.catalog
    status = HOLES if found.unreadable else 0
    if output_format == "json":
        names = _distinct(answer.columns)
        rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
        result = {"columns": names, "rows": rows, "unreadable": found.unreadable}
        report.echo_json("catalog query", status, result)
    elif text := _AS_TEXT[output_format](answer):
        report.echo(text)
    source.warn(found.unreadable, found.problems)
    return status


def _print_packages(listing: CatalogListing) -> None:
    _print_head(listing.source, listing.format, listing.path)
    everything = f", {size(listing.size)}" if listing.size is not None else ""
    report.echo(f"holds     {listing.bundles} bundles, {listing.images} images{everything}")
    report.echo()
    report.echo(_row("package", "default channel", "newest", "bundles", "images", "size"))
    for package in listing.packages:
        newest = [c.version for c in package.channels if c.name == package.default_channel]
        known = "" if package.size is None else size(package.size)
        name, default = package.name, package.default_channel
        counts = str(package.bundles), str(package.images)
        report.echo(_row(name, default, "".join(newest[:1]), *counts, known))


def _row(package: str, channel: str, version: str, bundles: str, images: str, known: str) -> str:
    texts = f"{printable(package):<40} {printable(channel):<24} {printable(version):<18}"
    return f"{texts} {bundles:>8} {images:>8} {known:>10}".rstrip()


def _print_channels(package: ListedPackage, *, versions: bool) -> None:
    report.echo()
    default = printable(package.default_channel) or "none"
    report.echo(f"{printable(package.name)}, default channel {default}")
    for channel in package.channels:
        head = f"head {printable(channel.head)} {printable(channel.version)}".rstrip()
        report.echo(f"  {printable(channel.name):<24} {len(channel.bundles)} bundles, {head}")
        for bundle in channel.bundles if versions else ():
            report.echo(f"    {printable(bundle.version):<22} {printable(bundle.name)}")


def _print_images(listing: ImageListing) -> None:
    for image in listing.images:
        report.echo(printable(image.reference, 400))
        if image.size is not None:
            report.echo(f"    {size(image.size)}")
        for bundle in image.bundles:
            report.echo(f"    {printable(bundle)}")


def _print_head(source: str, format_: str, path: str) -> None:
    report.echo(f"catalog   {printable(source, 400)}")
    report.echo(f"          {format_}" + (f" at {printable(path)}" if path else ""))


def _lines(answer: Answer) -> str:
    """Return rows as ``sqlite3 -line`` prints them."""
    width = max(5, *map(len, answer.columns))
    return "\n\n".join(
        "\n".join(
            f"{_shown(name):>{width}} = {_shown(value)}"
            for name, value in zip(answer.columns, row, strict=True)
        )
        for row in answer.rows
    )


def _table(answer: Answer) -> str:
    """Return a column under its name each; a long value is cut, a line feed in it escaped."""
    cells = [[printable(_text(value)) for value in row] for row in (answer.columns, *answer.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _csv(answer: Answer) -> str:
    """Return the names of the columns and the rows, as RFC 4180 has it but for the line feeds."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in (answer.columns, *answer.rows):
        writer.writerow(map(_shown, row))
    return file.getvalue().removesuffix("\n")


_AS_TEXT: Mapping[str, Callable[[Answer], str]] = {"lines": _lines, "table": _table, "csv": _csv}


def _text(value: Value) -> str:
    return "" if value is None else str(value)


def _shown(value: Value) -> str:
    """Return a value whole and fit for a terminal; only line feeds and tabs stay in it."""
    return re.sub(r"[^\n\t]+", lambda part: printable(part[0], len(part[0])), _text(value))


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names such that each is there once: NAME, NAME:1, NAME:2."""
    distinct: dict[str, None] = {}
    for name in names:
        numbered, number = name, 0
        while numbered in distinct:
            number += 1
            numbered = f"{name}:{number}"
        distinct[numbered] = None
    return list(distinct)
