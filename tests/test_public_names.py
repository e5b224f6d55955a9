"""What other programs build on: a change here is a change they must hear of."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

import airgap
from airgap import errors

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {
    "Access",
    "AccessDenied",
    "AirgapError",
    "AlreadyFinished",
    "ArchiveError",
    "Blocked",
    "Busy",
    "CatalogError",
    "Damage",
    "ExportResult",
    "HostActivity",
    "ImportResult",
    "Inspection",
    "IntegrityError",
    "Interrupted",
    "Listed",
    "MalformedContent",
    "MalformedDigest",
    "MalformedReference",
    "ManifestsOptions",
    "MirrorResult",
    "Missing",
    "Need",
    "NotFound",
    "Part",
    "Patience",
    "ReceiptResult",
    "Refused",
    "RegistryError",
    "ReshapeResult",
    "StorageError",
    "Unreachable",
    "UsageError",
    "VerifyResult",
    "VolumeFile",
    "VolumeOptions",
    "__version__",
    "export",
    "export_stream",
    "import_archive",
    "inspect",
    "join",
    "make_receipt",
    "merge",
    "mirror",
    "split",
    "verify",
}

SIGNATURES: dict[Callable[..., object], str] = {
    airgap.export: (
        "(catalogs: 'Sequence[str]', output: 'Path', *,"
        " access: 'Access | None' = None, platform: 'str' = 'linux/amd64',"
        " part: 'Part | None' = None, reuse: 'Sequence[Path]' = (), since: 'Sequence[Path]' = (),"
        " recheck: 'bool' = False,"
        " continue_on_error: 'bool' = True,"
        " volumes: 'VolumeOptions | None' = None, zstd: 'int | None' = None,"
        " window: 'int' = 1073741824,"
        " progress: 'Progress' = SILENT, stop: 'threading.Event | None' = None)"
        " -> 'ExportResult'"
    ),
    airgap.export_stream: (
        "(catalogs: 'Sequence[str]', stream: 'BinaryIO', *, zstd: 'int | None' = None,"
        " window: 'int' = 1073741824,"
        " access: 'Access | None' = None, platform: 'str' = 'linux/amd64',"
        " part: 'Part | None' = None, reuse: 'Sequence[Path]' = (),"
        " since: 'Sequence[Path]' = (),"
        " continue_on_error: 'bool' = True,"
        " progress: 'Progress' = SILENT, stop: 'threading.Event | None' = None)"
        " -> 'ExportResult'"
    ),
    airgap.import_archive: (
        "(archive: 'Paths | BinaryIO', destination: 'str', *,"
        " access: 'Access | None' = None, max_components: 'int' = 2,"
        " manifests: 'ManifestsOptions | None' = None, receipts: 'Sequence[Path]' = (),"
        " wait: 'bool' = False,"
        " window: 'int' = 1073741824,"
        " verify_first: 'bool' = False, force_tags: 'bool' = False, recheck: 'bool' = False,"
        " continue_on_error: 'bool' = True, progress: 'Progress' = SILENT,"
        " stop: 'threading.Event | None' = None) -> 'ImportResult'"
    ),
    airgap.mirror: (
        "(catalogs: 'Sequence[str]', destination: 'str', *,"
        " access: 'Access | None' = None, platform: 'str' = 'linux/amd64',"
        " part: 'Part | None' = None, max_components: 'int' = 2,"
        " manifests: 'ManifestsOptions | None' = None, force_tags: 'bool' = False,"
        " recheck: 'bool' = False, continue_on_error: 'bool' = True, progress: 'Progress' = SILENT,"
        " stop: 'threading.Event | None' = None) -> 'MirrorResult'"
    ),
    airgap.split: (
        "(archive: 'Paths', volumes: 'VolumeOptions', *, output: 'Path',"
        " progress: 'Progress' = SILENT, stop: 'threading.Event | None' = None)"
        " -> 'ReshapeResult'"
    ),
    airgap.join: (
        "(volumes: 'Paths', output: 'Path', *, progress: 'Progress' = SILENT,"
        " stop: 'threading.Event | None' = None) -> 'ReshapeResult'"
    ),
    airgap.merge: (
        "(archives: 'Sequence[Path]', output: 'Path', *,"
        " progress: 'Progress' = SILENT, stop: 'threading.Event | None' = None)"
        " -> 'ReshapeResult'"
    ),
    airgap.make_receipt: (
        "(archive: 'Paths', destination: 'str', output: 'Path', *,"
        " access: 'Access | None' = None, max_components: 'int' = 2,"
        " progress: 'Progress' = SILENT, stop: 'threading.Event | None' = None)"
        " -> 'ReceiptResult'"
    ),
    airgap.verify: (
        "(archive: 'Paths | BinaryIO', *, progress: 'Progress' = SILENT) -> 'VerifyResult'"
    ),
    airgap.inspect: "(archive: 'Paths | BinaryIO') -> 'Inspection'",
}

FIELDS: dict[type[Any], str] = {
    airgap.ExportResult: (
        "archive id images manifests blobs size volumes assumed assumed_bytes"
        " fetched fetched_bytes reused reused_bytes manifests_reused missing broken hosts"
        " exit_status"
    ),
    airgap.ImportResult: (
        "arrived images_present sent sent_bytes mounted present manifests_sent"
        " missing failed broken to_create hosts errors"
        " archive id destination manifests files damage exit_status"
    ),
    airgap.MirrorResult: (
        "arrived images_present sent sent_bytes mounted present manifests_sent"
        " missing failed broken to_create hosts errors"
        " catalogs id destination manifests files exit_status"
    ),
    airgap.VerifyResult: "archive id images size damage missing volumes notes needs exit_status",
    airgap.Inspection: (
        "archive id size catalogs packages images manifests blobs content_size damage missing"
        " volumes notes needs exit_status"
    ),
    airgap.ReceiptResult: "archive id destination file images missing hosts exit_status",
    airgap.Need: "archives blobs size",
    airgap.ReshapeResult: "archive id volumes size exit_status",
    airgap.VolumeFile: "number file",
    airgap.VolumeOptions: "size directories ask",
    airgap.Missing: "reference reason bundles packages detail",
    airgap.Damage: "message images packages",
    airgap.HostActivity: (
        "host requests fetched fetched_bytes sent sent_bytes mounted present manifests_sent"
        " retries waited"
    ),
    airgap.Access: (
        "registry_config registries_conf insecure certificate_authority connections patience clock"
    ),
    airgap.Patience: "connect read write verdict",
    airgap.ManifestsOptions: "directory icsp_scope idms_scope max_icsp_size",
}


def test_the_public_names_are_these() -> None:
    assert set(airgap.__all__) == NAMES
    assert all(hasattr(airgap, name) for name in NAMES)


def test_every_kind_of_error_can_be_caught_by_its_public_name() -> None:
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.AirgapError)
    }
    assert kinds <= NAMES


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__name__)
def test_the_functions_take_and_give_this(function: Callable[..., object]) -> None:
    signature = str(inspect.signature(function)).replace(repr(airgap.progress.SILENT), "SILENT")
    assert signature == SIGNATURES[function]


@pytest.mark.parametrize("result", FIELDS, ids=lambda result: result.__name__)
def test_the_results_have_these_fields(result: type) -> None:
    fields = [field.name for field in dataclasses.fields(result)]
    properties = [name for name, value in inspect.getmembers(result) if isinstance(value, property)]
    assert (
        " ".join([*fields, *(name for name in properties if name == "exit_status")])
        == (FIELDS[result])
    )


def test_values_cannot_be_changed_by_whoever_holds_them() -> None:
    assert all(vars(result)["__dataclass_params__"].frozen for result in FIELDS)


def test_the_types_are_shipped() -> None:
    assert files("airgap").joinpath("py.typed").is_file()


def test_the_version_is_one() -> None:
    assert [part.isdecimal() for part in airgap.__version__.split(".")] == [True] * 3
