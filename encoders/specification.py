"""Read specs, which say in one line what turns each leaf of an observation into features.

    nature_cnn
    nature_cnn(features=64, padding=SAME)
    gray | edges | nature_cnn
    my_lab.eyes:Retina(width=8)
    vision_left=gray | nature_cnn, vision_right=mlp

In full: leaves are separated by commas, and each is `LEAF=CHAIN`, or `CHAIN` alone for every image
that no other names. A chain is stages separated by `|`. A stage is a registered name or
`package.module:Class`, and settings in parentheses. A value is a number, True, False, None, a name,
a text in quotes, or a tuple of these. Nothing in a spec is evaluated as code.
"""

import ast
import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.chain import Chain, RandomChain
from encoders.module_checks import Unfit, check_callable, described, is_ours, output_of
from encoders.randomness import takes_key
from encoders.registry import check_settings, find, nearest, settings_of
from encoders.stages.motion import Motion

OTHERS = ""
"""The leaf's name, in what `parse` returns, of the chain for every image that is not named."""
LARGEST = 2**31
_OPEN, _CLOSE = "([{", ")]}"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a chain, as it is written."""

    name: str
    """A registered name, or `package.module:Class`."""
    settings: Mapping[str, Any]
    """Values by name."""
    place: int
    """Index of its first character in the spec."""


def parse(text: str) -> dict[str, tuple[Stage, ...]]:
    """Return the stages for each leaf that a spec names, and for `OTHERS`.

    Nothing is imported and no name looked up.

    Raises:
        ValueError: the text is no spec; the message has the text and the position.
    """
    chains: dict[str, tuple[Stage, ...]] = {}
    for begin, end in _split(text, ",", 0, len(text)):
        leaf, start = _leaf(text, begin, end)
        if leaf in chains:
            what = f"the leaf {leaf!r}" if leaf else "every image that has no spec of its own"
            raise _wrong(text, begin, f"there is a second spec for {what}; write LEAF=SPEC")
        parts = _split(text, "|", start, end)
        chains[leaf] = tuple(_stage(text, *part) for part in parts)
    return chains


def make_encoder(text: str, **settings: Any) -> nn.Module:
    """Build the encoder that a spec for one leaf describes.

    Args:
        text: such as `nature_cnn`, `gray | nature_cnn(features=64)` or `my_lab.eyes:Retina`.
        settings: further settings, such as `features=64`, for every stage that has them and is not
            given them in the text.

    Returns:
        the module of a single stage; a `Chain` of several.

    Raises:
        ValueError: the text is no spec of one leaf, a name is unknown or cannot be imported, or a
            setting is unknown, missing or of the wrong type.
    """
    chains = parse(text)
    if set(chains) != {OTHERS}:
        raise _wrong(text, 0, "it names leaves; give the spec of one leaf, without LEAF=")
    _check_used(text, chains, settings)
    return _chained(_built(text, chains[OTHERS], settings))


def make_encoders(
    text: str, leaves: Mapping[str, Any], frames: int = 1, **settings: Any
) -> dict[str, nn.Module]:
    """Build, and check, an encoder for each leaf that is an image or that the spec names.

    Shapes are computed without compiling anything.

    Args:
        text: a spec, see the head of this module.
        leaves: shape and dtype of one observation's leaves, by name.
        frames: number of frames that are stacked along the channels of each image.
        settings: as for `make_encoder`.

    Returns:
        encoders by the name of their leaf, without images for which the spec has nothing.

    Raises:
        ValueError: as `make_encoder`, or the observation has no such leaf, or a stage does not fit
            the leaf or gives no features. Any exception of the user's own code is passed on.
    """
    chains = parse(text)
    for begin, end in _split(text, ",", 0, len(text)):
        leaf, _ = _leaf(text, begin, end)
        if leaf and leaf not in leaves:
            known = f"the observation has {', '.join(leaves)}"
            raise _wrong(text, begin, f"there is no leaf {leaf!r};{nearest(leaf, leaves)} {known}")
    wanted = {leaf: chains.get(leaf) for leaf in leaves}
    for leaf, spec in leaves.items():
        if wanted[leaf] is None and spec.dtype == jnp.uint8:
            wanted[leaf] = chains.get(OTHERS)
    used = {leaf: stages for leaf, stages in wanted.items() if stages}
    if used:
        _check_used(text, used, settings)
    encoders = {}
    for leaf, stages in used.items():
        shape = leaves[leaf].shape
        modules = _built(text, stages, settings, shape[-1] // frames if len(shape) == 3 else None)
        _check_fit(text, stages, modules, leaf, leaves[leaf])
        encoders[leaf] = _chained(modules)
    return encoders


def _wrong(text: str, place: int, why: str) -> ValueError:
    return ValueError(f"encoder {text!r}, character {place + 1}: {why}")


def _split(text: str, mark: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Return begin and end of the pieces between marks that are in no parentheses or quotes."""
    places = [i for i, c in _outside(text, begin, end) if c == mark]
    return list(zip([begin, *(i + 1 for i in places)], [*places, end], strict=True))


def _outside(text: str, begin: int, end: int) -> Iterator[tuple[int, str]]:
    """Yield the characters, with their index, that are in no parentheses and in no quotes."""
    opened: list[int] = []
    i = begin
    while i < end:
        c = text[i]
        if c in "'\"" and opened:
            start = i
            i += 1
            while i < end and text[i] != c:
                i += 2 if text[i] == "\\" else 1
            if i >= end:
                raise _wrong(text, start, f"a quote ({c}) is opened and not closed")
        elif c in _OPEN:
            if not opened:
                yield i, c
            opened.append(i)
        elif c in _CLOSE:
            if not opened or _OPEN.index(text[opened.pop()]) != _CLOSE.index(c):
                raise _wrong(text, i, f"{c!r} closes nothing that was opened")
        elif not opened:
            yield i, c
        i += 1
    if opened:
        raise _wrong(text, opened[-1], f"{text[opened[-1]]!r} is opened and not closed")


def _leaf(text: str, begin: int, end: int) -> tuple[str, int]:
    """Return the leaf's name before `=`, or `OTHERS`, and where its chain begins."""
    place = next((i for i, c in _outside(text, begin, end) if c == "="), None)
    if place is None:
        return OTHERS, begin
    leaf = text[begin:place].strip()
    if not re.fullmatch(r"[\w.\-]+", leaf):
        raise _wrong(
            text, begin, f"{leaf!r} is no name of a leaf; write LEAF=SPEC, and settings as in "
            f"nature_cnn(features=64)"
        )  # fmt: skip
    return leaf, place + 1


def _stage(text: str, begin: int, end: int) -> Stage:
    begin, end = _stripped(text, begin, end)
    place = next((i for i, c in _outside(text, begin, end) if c in _OPEN), end)
    settings: dict[str, Any] = {}
    if place < end:
        if text[place] != "(" or text[end - 1] != ")" or _after_parentheses(text, place, end):
            raise _wrong(text, place, "write a stage as NAME or NAME(SETTING=VALUE, ...)")
        settings = _settings(text, place, end)
    return Stage(text[begin:place].strip(), settings, begin)


def _stripped(text: str, begin: int, end: int) -> tuple[int, int]:
    piece = text[begin:end]
    begin += len(piece) - len(piece.lstrip())
    return begin, begin + len(piece.strip())


def _after_parentheses(text: str, place: int, end: int) -> bool:
    """Return whether anything but spaces follows the parentheses that open at `place`."""
    return any(not c.isspace() for i, c in _outside(text, place, end) if i > place)


def _settings(text: str, begin: int, end: int) -> dict[str, Any]:
    """Return the values by name between the parentheses `text[begin:end]`."""
    # Line breaks would be counted apart; the prefix is as long as one parenthesis is not.
    code = "f" + re.sub(r"\s", " ", text[begin:end])
    place_of = lambda column: begin + len(code.encode()[:column].decode(errors="ignore")) - 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = ast.parse(code, mode="eval").body
    except SyntaxError as error:
        place = min(max(begin + (error.offset or 1) - 2, begin), end - 1)
        raise _wrong(text, place, f"{_lower(error.msg)}; write SETTING=VALUE") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _wrong(text, begin, f"cannot read the settings ({error})") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise _wrong(text, begin, "write settings as SETTING=VALUE")
    if call.args:
        place = place_of(call.args[0].col_offset)
        raise _wrong(text, place, "a value has no name; write SETTING=VALUE")
    settings: dict[str, Any] = {}
    for keyword in call.keywords:
        place = place_of(keyword.col_offset)
        if keyword.arg is None:
            raise _wrong(text, place, "write settings as SETTING=VALUE")
        if keyword.arg in settings:
            raise _wrong(text, place, f"the setting {keyword.arg!r} is given twice")
        try:
            settings[keyword.arg] = _value(keyword.value)
        except ValueError as error:
            where = place_of(keyword.value.col_offset)
            raise _wrong(text, where, f"{keyword.arg}: {error}") from None
        except RecursionError:
            raise _wrong(text, place, f"{keyword.arg} is nested too deeply") from None
    return settings


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _value(node: ast.expr) -> Any:
    """Return the value that an expression writes down; it is not evaluated."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(x) for x in node.elts)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        value = ...
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError(
            "a value has to be a number, True, False, None, a name, a text in quotes, or a tuple"
        )
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < LARGEST):
        raise ValueError("a number has to be finite and below 2^31")
    return value


def _check_used(
    text: str, chains: Mapping[str, tuple[Stage, ...]], settings: Mapping[str, Any]
) -> None:
    """Raise a ValueError unless each of the further settings is one of some stage."""
    stages = [stage for chain in chains.values() for stage in chain]
    classes = [_class(text, stage) for stage in stages]
    for name in settings:
        if not any(name in settings_of(cls) for cls in classes):
            # The last stage is the one that makes features.
            with _told_at(text, stages[-1]):
                check_settings(stages[-1].name, classes[-1], {name: settings[name]})


@contextlib.contextmanager
def _told_at(text: str, stage: Stage, kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Tell an error of a kind with the spec and the position of a stage."""
    try:
        yield
    except kind as error:
        raise _wrong(text, stage.place, str(error)) from error


def _class(text: str, stage: Stage) -> type[nn.Module]:
    with _told_at(text, stage):
        return find(stage.name)


def _built(
    text: str, stages: tuple[Stage, ...], settings: Mapping[str, Any], channels: int | None = 3
) -> tuple[nn.Module, ...]:
    """Return the modules of a chain; `channels` is how many a frame has, None if unknown."""

    def module(stage: Stage) -> nn.Module:
        cls = _class(text, stage)
        more = {k: v for k, v in settings.items() if k in settings_of(cls)}
        given = {**more, **stage.settings}
        with _told_at(text, stage):
            check_settings(stage.name, cls, given)
        return cls(**given)

    modules = []
    for stage in stages:
        made = module(stage)
        if isinstance(made, Motion):
            if made.channels is None and channels is None:
                why = "it is not known how many channels a frame has here; say motion(channels=N)"
                raise _wrong(text, stage.place, why)
            made = made.clone(channels=channels if made.channels is None else made.channels)
            channels = made.channels
        with _told_at(text, stage):
            channels = _frame_channels(made, channels)
        modules.append(made)
    return tuple(modules)


def _frame_channels(module: nn.Module, channels: int | None) -> int | None:
    """Return how many channels a frame has after a module; None if unknown."""
    if channels is None or hasattr(module, "frame_channels"):
        return channels and module.frame_channels(channels)  # type: ignore[attr-defined]
    return channels if is_ours(module) else None


def _chained(modules: tuple[nn.Module, ...]) -> nn.Module:
    if len(modules) == 1:
        return modules[0]
    return RandomChain(modules) if any(map(takes_key, modules)) else Chain(modules)


def _check_fit(
    text: str, stages: tuple[Stage, ...], modules: tuple[nn.Module, ...], leaf: str, spec: Any
) -> None:
    """Raise a ValueError unless the stages turn a leaf into features, whatever its leading axes.

    Networks are initialised with [1, ...]; training applies them to [N, ...] and [B, T, ...].
    """
    for stage, module in zip(stages, modules, strict=True):
        with _told_at(text, stage, Unfit):
            check_callable(stage.name, module)
    params: list[Any] = []
    for leading in ((1,), (2, 3)):
        x = jax.ShapeDtypeStruct((*leading, *spec.shape), spec.dtype)
        now: list[Any] = []
        for stage, module in zip(stages, modules, strict=True):
            with _told_at(text, stage, Unfit):
                x, own = output_of(stage.name, module, x, leading)
            now.append(own)
        given = f"{spec.dtype}{[*leading, *spec.shape]}"
        got = described(x)
        last = stages[-1]
        if x.ndim != len(leading) + 1 or x.shape[:-1] != leading:
            raise _wrong(
                text,
                last.place,
                f"{last.name!r} returns {got} for the leaf {leaf!r} ({given}); features "
                f"have to be [..., F], with the leading axes of the leaf and one more: "
                f"reshape or average the others, or end the chain with an encoder such as "
                f"nature_cnn, or flatten before mlp",
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise _wrong(
                text, last.place, f"{last.name!r} returns {got}; features have to be float"
            )
        for stage, first, second in zip(stages, params, now, strict=False):
            if first != second:
                raise _wrong(
                    text,
                    stage.place,
                    f"{stage.name!r} has parameters whose shapes change with the leading axes of "
                    f"its input, {first} and {second}; make them of the last axes alone",
                )
        params = now
