"""Commands that remember how they were typed, to be able to say what to type next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPED = "airgap.cli.typed"


class RememberingCommand(click.Command):
    """A command whose context knows what was typed after its name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed, then parse it as any command does."""
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)


def typed_again(context: click.Context, changes: Mapping[str, str], *more: str) -> str:
    """Return a command as it was typed, fit for a shell, with other values and ``more`` words.

    ``changes`` has the new values by the names of the parameters.
    """
    parser = context.command.make_parser(context)
    values, _, order = parser.parse_args(list(context.meta[_TYPED]))
    values |= changes
    arguments_first = sorted(dict.fromkeys(order), key=lambda p: isinstance(p, click.Option))
    words = [word for p in arguments_first for word in _words(p, values[p.name])]
    return shlex.join([*context.command_path.split(), *words, *more])


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    """Return what gives a parameter its value, as the parser has it."""
    if not isinstance(parameter, click.Option):
        return list(value) if isinstance(value, tuple) else [value]
    name = parameter.opts[0]
    if parameter.count:
        return [name] * value
    if parameter.is_flag:
        return [name if value else parameter.secondary_opts[0]]
    given = value if parameter.multiple else [value]
    # What is no text stands for a value that was left out.
    return [word for one in given for word in (name, one) if isinstance(word, str)]
