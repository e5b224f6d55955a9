"""The files of an image: its layers merged into one tree, in memory.

Follows the OCI image specification's layer.md for whiteouts and for what an upper layer does
to a lower one. Only names, sizes and first bytes are kept; content is read from its layer
again when somebody wants it. Links lead somewhere inside the tree or nowhere. Nothing is ever
written under a name that a layer chose. Knows nothing of where layers come from, nor of what
the files are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from airgap import limits
from airgap.errors import MalformedContent, printable
from airgap.oci import tar_stream
from airgap.oci.decompress import decompressed
from airgap.oci.tar_stream import Kind, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_WHITEOUT = ".wh."
_RESERVED = ".wh..wh."
_OPAQUE = ".wh..wh..opq"

_MAGIC = 16
"""How many of a file's first bytes are kept."""

_LINKS = 40
"""How many symbolic links one path may lead through, as in Linux."""

_NODES = limits.ENTRIES_PER_LAYER
"""All layers together may not make a larger tree than one may."""

_NAMES = 128 * limits.MIB
"""Characters in the names and links of all layers."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's bytes, compressed or not, to be opened as often as needed.

    ``name`` stands for it in errors.
    """

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of the tree; ``magic`` is its first 16 bytes, or all of a shorter one."""

    path: str
    size: int
    magic: bytes
    _content: _File = field(repr=False)

    def copy_to(self, target: BinaryIO) -> None:
        """Write the content; reads the layer from its beginning up to the file.

        Raises MalformedContent when the layer does not read as it did before.
        """
        self._content.copy_to(target)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a directory and in those below it, in the order of a walk.

    ``files`` are the regular files and the symbolic links to one; ``links`` the paths of the
    symbolic links to anything else: to a directory, out of the tree, or to nothing.
    """

    files: tuple[Entry, ...]
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    layer: Layer
    place: int
    """Which of the layer's members it is."""
    size: int
    magic: bytes

    def copy_to(self, target: BinaryIO) -> None:
        with self.layer.open() as raw:
            for place, member in enumerate(_members(self.layer, raw)):
                if place == self.place and member.size == self.size:
                    for piece in member.content:
                        target.write(piece)
                    return
        raise _changed(self.layer)


@dataclass(frozen=True, slots=True, eq=False)
class _Symlink:
    target: str


@dataclass(frozen=True, slots=True, eq=False)
class _Directory:
    children: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Symlink | _Directory


@dataclass(frozen=True, slots=True)
class _HardLink:
    """A further name for what stands at a path once the link is made."""

    target: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What a member of a layer puts at a path; None where only something is hidden."""

    path: tuple[str, ...]
    node: _Node | _HardLink | None


class FileTree:
    """The regular files of stacked layers."""

    def __init__(self) -> None:
        self._root = _Directory()
        self._nodes = 0
        self._names = 0

    @classmethod
    def scan(cls, layers: Iterable[Layer]) -> FileTree:
        """Read layers, lowest first, each from its first byte to its last.

        Raises MalformedContent for a layer that is damaged, or larger than the limits.
        """
        tree = cls()
        for layer in layers:
            tree._apply(layer)
        return tree

    def files(self) -> Iterator[Entry]:
        """Give every regular file, depth first, the names in a directory sorted bytewise."""
        for path, node in _walk("", self._root):
            if isinstance(node, _File):
                yield Entry(path, node.size, node.magic, node)

    def find(self, path: str) -> Entry | None:
        """Return the regular file at a path, links followed; None when there is none.

        A path or link that leads out of the tree, round in a circle or nowhere is no file.
        """
        parts = _components(path)
        node = self._follow(parts) if parts is not None else None
        if parts is None or not isinstance(node, _File):
            return None
        return Entry("/".join(parts), node.size, node.magic, node)

    def listing(self, directory: str) -> Listing | None:
        """Say what is in a directory, "" for the top; None when there is no such directory.

        Links are followed on the way to it, and to files, but not to further directories.
        """
        parts = _components(directory)
        top = self._follow(parts) if parts is not None else None
        if parts is None or not isinstance(top, _Directory):
            return None
        files, links = [], []
        for path, node in _walk("/".join(parts), top):
            leads_to = self._follow(_steps(path)) if isinstance(node, _Symlink) else node
            if isinstance(leads_to, _File):
                files.append(Entry(path, leads_to.size, leads_to.magic, leads_to))
            else:
                links.append(path)
        return Listing(tuple(files), tuple(links))

    def read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give files with their content in pieces, reading each of their layers once.

        They come in the order in which the layers hold them. The pieces are there until the
        next file is asked for. A file at several of the paths comes once, under the first;
        a path where no file is is left out. Raises MalformedContent when a layer does not
        read as it did before.
        """
        wanted: dict[Layer, dict[int, tuple[str, _File]]] = {}
        for path in paths:
            node = self._follow(_steps(path))
            if isinstance(node, _File):
                wanted.setdefault(node.layer, {}).setdefault(node.place, (path, node))
        for layer, files in wanted.items():
            yield from _contents(layer, files)

    def _apply(self, layer: Layer) -> None:
        """Put a layer on top; whiteouts take effect first, being for lower layers only."""
        changes: deque[_Change] = deque()
        with layer.open() as raw:
            for place, member in enumerate(_members(layer, raw)):
                self._admit(layer, place, member)
                path = _components(member.name)
                if not path or any(part.startswith(_WHITEOUT) for part in path[:-1]):
                    continue
                if path[-1].startswith(_WHITEOUT):
                    self._white_out(path, layer)
                else:
                    changes.append(_Change(path, _node(layer, place, member)))
        while changes:
            self._put(changes.popleft(), layer)

    def _admit(self, layer: Layer, place: int, member: Member) -> None:
        self._names += len(member.name) + len(member.link)
        if place >= limits.ENTRIES_PER_LAYER or self._names > _NAMES:
            raise MalformedContent(f"{layer.name}: too many files, or too long names")

    def _white_out(self, marker: tuple[str, ...], layer: Layer) -> None:
        """Hide what a marker says, of the layers below."""
        directory = self._follow(marker[:-1])
        if not isinstance(directory, _Directory):
            return
        if marker[-1] == _OPAQUE:
            directory.children.clear()
        elif not marker[-1].startswith(_RESERVED):
            name = marker[-1].removeprefix(_WHITEOUT)
            if name in ("", ".", ".."):
                raise MalformedContent(f"{layer.name}: {printable('/'.join(marker))} hides nothing")
            directory.children.pop(name, None)

    def _put(self, change: _Change, layer: Layer) -> None:
        parent = self._follow(change.path[:-1], create_for=layer)
        if not isinstance(parent, _Directory):
            return
        name, node = change.path[-1], change.node
        if isinstance(node, _HardLink):
            node = self._linked(node)
        if node is None:
            parent.children.pop(name, None)
        elif not (
            isinstance(node, _Directory) and isinstance(parent.children.get(name), _Directory)
        ):
            self._grow(layer)
            parent.children[name] = node

    def _linked(self, link: _HardLink) -> _Node | None:
        """Return what a hard link names: as in Linux never a directory, but maybe a symlink."""
        path = _components(link.target)
        parent = self._follow(path[:-1]) if path else None
        if not path or not isinstance(parent, _Directory):
            return None
        node = parent.children.get(path[-1])
        return None if isinstance(node, _Directory) else node

    def _grow(self, layer: Layer) -> None:
        self._nodes += 1
        if self._nodes > _NODES:
            raise MalformedContent(f"{layer.name}: more than {_NODES} files and directories")

    def _follow(self, path: Iterable[str], create_for: Layer | None = None) -> _Node | None:
        """Return what is at a path, every symbolic link on it followed.

        None when it leads out of the tree, through too many links or nowhere; for a layer
        that needs them, missing directories are made, in place of files if need be.
        """
        trail = [self._root]
        todo = deque(path)
        links = 0
        while todo:
            part = todo.popleft()
            if part == "..":
                if len(trail) == 1:
                    return None
                trail.pop()
                continue
            node = trail[-1].children.get(part)
            if isinstance(node, _Symlink):
                links += 1
                if links > _LINKS:
                    return None
                if node.target.startswith("/"):
                    trail = [self._root]
                todo.extendleft(reversed(_steps(node.target)))
                continue
            if create_for is not None and not isinstance(node, _Directory):
                self._grow(create_for)
                node = trail[-1].children[part] = _Directory()
            if not isinstance(node, _Directory):
                return node if not todo else None
            trail.append(node)
        return trail[-1]


def _walk(path: str, top: _Directory) -> Iterator[tuple[str, _File | _Symlink]]:
    """Give what is below a directory, depth first, the names sorted bytewise."""
    waiting: list[tuple[str, _Node]] = [(path, top)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, _Directory):
            yield path, node
            continue
        prefix = f"{path}/" if path else ""
        for name in sorted(node.children, key=_bytewise, reverse=True):
            waiting.append((prefix + name, node.children[name]))


def _contents(
    layer: Layer, wanted: dict[int, tuple[str, _File]]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Give a layer's files by their places in it, in one reading that ends with the last."""
    missing = set(wanted)
    with layer.open() as raw:
        for place, member in enumerate(_members(layer, raw)):
            if place not in missing:
                continue
            path, file = wanted[place]
            if member.size != file.size:
                break
            yield path, iter(member.content)
            missing.remove(place)
            if not missing:
                return
    raise _changed(layer)


def _changed(layer: Layer) -> MalformedContent:
    return MalformedContent(f"{layer.name}: no longer reads as it did a moment ago")


def _members(layer: Layer, raw: BinaryIO) -> Iterator[Member]:
    return tar_stream.members(decompressed(raw, layer.name), layer.name)


def _node(layer: Layer, place: int, member: Member) -> _Node | _HardLink | None:
    match member.kind:
        case Kind.FILE:
            return _File(layer, place, member.size, _first_bytes(member))
        case Kind.DIRECTORY:
            return _Directory()
        case Kind.SYMLINK:
            return _Symlink(member.link)
        case Kind.HARD_LINK:
            return _HardLink(member.link)
        case Kind.OTHER:
            return None


def _first_bytes(member: Member) -> bytes:
    first = b""
    for piece in member.content:
        first += piece[:_MAGIC]
        if len(first) >= _MAGIC:
            break
    return first[:_MAGIC]


def _components(path: str) -> tuple[str, ...] | None:
    """Split a path as it stands, None when it climbs out of the tree."""
    parts: list[str] = []
    for step in _steps(path):
        if step != "..":
            parts.append(step)
        elif parts:
            parts.pop()
        else:
            return None
    return tuple(parts)


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step not in ("", ".")]


def _bytewise(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
