"""``airgap diff``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from airgap import receipt
from airgap.browser import open_catalog
from airgap.catalog.compare import ADDED, CHANGED, GONE
from airgap.cli import options, report
from airgap.cli.progress import size
from airgap.cli.running import shown_progress
from airgap.differ import Delivered, diff
from airgap.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from airgap.browser import OpenCatalog
    from airgap.catalog.compare import ChannelChange, PackageChange
    from airgap.catalog.listing import ListedBundle
    from airgap.differ import Difference

SHOWN_VERSIONS = 8

_MARKS = {ADDED: "+", GONE: "-", CHANGED: " "}


@click.command("diff", short_help="Say what has changed from one catalog or archive to another.")
@click.argument("old")
@click.argument("new")
@click.option("--images", is_flag=True, help="List the images that were added and are gone.")
@click.option("--old-catalog", metavar="REFERENCE", help="Which, of an archive with several.")
@click.option("--new-catalog", metavar="REFERENCE", help="Which, of an archive with several.")
@options.index_filter_option
@options.registry_options
@options.registries_conf_option
@options.output_option
@options.verbosity_options
@click.pass_context
def diff_command(
    context: click.Context,
    old: str,
    new: str,
    images: bool,
    old_catalog: str | None,
    new_catalog: str | None,
    platform: str,
    registry_config: Path | None,
    insecure: bool,
    certificate_authority: Path | None,
    max_per_registry: int,
    registries_conf: Path | None,
    output_format: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Say what has changed from the catalog in OLD to the one in NEW.

    Packages, channels and versions that were added or are gone, channels with another head, and
    images. OLD and NEW are archives, receipts, database files, directories that hold a catalog,
    or references of catalog images, in any mixture; what is on disk comes first. A receipt knows
    images alone. Where OLD is an archive or a receipt and NEW an archive, it also says how much
    that holds that OLD has not. Differences are no failure: the exit status is 0.

    \b
    Examples:
      airgap diff september.tar october.tar
      airgap diff september.tar quay.io/my/catalog:v1 --images
      airgap diff receipt.json october.tar
      airgap diff quay.io/my/catalog:v1 quay.io/my/catalog:v2 --output json
    """
    options.set_verbosity(verbose)
    chosen = context.get_parameter_source("platform") is not ParameterSource.DEFAULT
    access = options.access_from(
        registry_config, insecure, certificate_authority, max_per_registry, registries_conf
    )
    with shown_progress(quiet) as progress:

        def side(
            source: str, catalog: str | None
        ) -> AbstractContextManager[OpenCatalog | Delivered]:
            path = Path(source)
            if path.is_file() and receipt.is_receipt(path):
                return nullcontext(Delivered(source, receipt.read(path)))
            return open_catalog(
                source, catalog=catalog, access=access, platform=platform if chosen else None,
                progress=progress, stop=context.obj,
            )  # fmt: skip

        with side(old, old_catalog) as older, side(new, new_catalog) as newer:
            found = diff(older, newer)
    if output_format == "json":
        report.echo_json("diff", found.exit_status, found)
    else:
        _print(found, images)
    for line in found.unreadable:
        report.echo(f"unreadable: {printable(line, 2000)}", err=True)
    return found.exit_status


def _print(found: Difference, images: bool) -> None:
    report.echo(f"old       {printable(found.old, 400)}")
    report.echo(f"new       {printable(found.new, 400)}")
    if found.packages is not None:
        kinds = [package.change for package in found.packages]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in _MARKS)
        report.echo(f"packages  {counts}")
    report.echo(f"images    {len(found.images_added)} added, {len(found.images_gone)} gone")
    if found.fetch is not None:
        fetch = found.fetch
        report.echo(
            f"to fetch  {size(fetch.size)}: {fetch.blobs} blobs, {fetch.manifests} manifests"
        )
    for package in found.packages or ():
        _print_package(package)
    for title, references in (("+", found.images_added), ("-", found.images_gone)):
        if images and references:
            report.echo()
        for reference in references if images else ():
            report.echo(f"{title} {printable(reference, 400)}")


def _print_package(package: PackageChange) -> None:
    report.echo()
    report.echo(f"{_MARKS[package.change]} {printable(package.name)}")
    defaults = (package.old_default_channel, package.new_default_channel)
    if package.change == CHANGED and defaults[0] != defaults[1]:
        was, now = (printable(name) or "none" for name in defaults)
        report.echo(f"    default channel {was} -> {now}")
    for channel in package.channels:
        _print_channel(channel)
    for mark, bundles in (("+", package.versions_added), ("-", package.versions_gone)):
        if bundles:
            report.echo(f"  {mark} versions {_some(bundles)}")


def _print_channel(channel: ChannelChange) -> None:
    heads = (_version(head) for head in (channel.old_head, channel.new_head) if head is not None)
    mark = _MARKS[channel.change]
    report.echo(f"  {mark} channel {printable(channel.name)}: head {' -> '.join(heads)}")


def _some(bundles: Sequence[ListedBundle]) -> str:
    """Return the newest versions, and how many more there are."""
    shown = ", ".join(_version(bundle) for bundle in bundles[-SHOWN_VERSIONS:])
    more = len(bundles) - SHOWN_VERSIONS
    return f"{shown} and {more} older" if more > 0 else shown


def _version(bundle: ListedBundle) -> str:
    return printable(bundle.version or bundle.name)
