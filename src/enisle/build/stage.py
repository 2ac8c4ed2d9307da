"""One stage of a build: its base, then instruction after instruction, each from the cache or carried out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from enisle.build.cache import key_of
from enisle.build.copying import Copier, CopyStep
from enisle.build.layer_filter import filtered, stubs
from enisle.build.layer_plan import LayerPlan, threaded
from enisle.build.layer_tree import LayerTree
from enisle.build.owners import owner
from enisle.build.report import Section
from enisle.build.run_mounts import SCRIPTS, RunMounts
from enisle.build.run_step import RunFailed, RunStep
from enisle.build.scope import Scope
from enisle.build.tree import EmptyTree, Tree, split
from enisle.contracts import ImageStep
from enisle.engine.completion import DEFAULT_PATH
from enisle.errors import EnisleError, Invalid
from enisle.formats.dockerfile import config as config_steps
from enisle.formats.dockerfile.instructions import Arg, Copy, Instruction, Run, SetCommand, SetText, Stage
from enisle.formats.dockerfile.lines import split as split_lines
from enisle.formats.dockerfile.parse import parse_line
from enisle.formats.dockerfile.words import expand_heredoc
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig

if TYPE_CHECKING:
    from enisle.build.job import Build

NOP = "#(nop) "


class StepFailed(EnisleError):
    """An instruction could not be carried out. ``line`` counts from 1, 0: not of the Dockerfile itself."""

    def __init__(self, cause: EnisleError, line: int) -> None:
        super().__init__(cause.message, remedy=cause.remedy)
        self.kind = cause.kind
        self.line = line
        self.exit_code = cause.exit_code if isinstance(cause, RunFailed) else 0
        self.words = cause.words if isinstance(cause, RunFailed) else ()


@dataclass(kw_only=True)
class State:
    """What a stage is so far. ``image`` None: nothing yet. ``has_command``: this file has set one."""

    image: ImageId | None = None
    config: ImageConfig
    author: str = ""
    has_command: bool = False


class StageBuilder:
    """Carries out one stage; :meth:`run` once. Close it when nobody needs its files any more."""

    def __init__(self, build: Build, stage: Stage, section: Section) -> None:
        self._build = build
        self._stage = stage
        self._section = section
        self._scope = Scope(build.arguments)
        self._state = State(config=ImageConfig())
        self._tree: Tree = EmptyTree()
        self._line = stage.base.number
        self.base: ImageId | None = None

    async def run(self) -> State:
        """The finished stage. Raises StepFailed."""
        try:
            await self._begin()
            for instruction in self._stage.instructions:
                await self._step(instruction)
            return self._state
        except StepFailed:
            raise
        except EnisleError as error:
            raise StepFailed(error, self._line) from error
        finally:
            self._forget_tree()

    async def add(self, instruction: Instruction) -> State:
        """One more instruction, which the client has asked for."""
        await self._step(instruction)
        return self._state

    # --- the base ---

    async def _begin(self) -> None:
        base = self._stage.base
        name = self._build.arguments.expand_global(base.image)
        if not name:
            raise Invalid(f"base name ({base.image}) should not be blank")
        self._announce(base)
        if name == "scratch":
            self._section.image(None)
            self._state.config = ImageConfig(env=(DEFAULT_PATH,))
            return
        found = await self._build.base_state(name, self._stage, self._section)
        self.base = found.image
        triggers = found.config.on_build
        self._state = replace(found, config=replace(found.config, on_build=()), has_command=False)
        self._say_image()
        if triggers:
            word = "triggers" if len(triggers) > 1 else "trigger"
            self._section.note(f"# Executing {len(triggers)} build {word}\n")
        if triggers:
            await self._build.need_whole_context()
        for trigger in triggers:
            for line in split_lines(trigger).lines:
                await self._carry_out(replace(parse_line(line), number=base.number))

    def _announce(self, instruction: Instruction) -> None:
        self._line = instruction.number
        self._section.step(instruction, self._build.place(instruction))

    def _say_image(self) -> None:
        if self._state.image is not None:
            self._section.image(self._state.image)

    async def _step(self, instruction: Instruction) -> None:
        self._announce(instruction)
        await self._carry_out(instruction)
        self._say_image()

    async def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Arg():
                self._scope.declare(instruction, self._state.config.env)
            case Run():
                await self._run(instruction)
            case Copy():
                await self._copy(instruction)
            case SetText(kind="WORKDIR"):
                await self._work_directory(instruction)
            case _:
                await self._change(instruction)

    def _expand(self, text: str) -> str:
        return self._scope.expand(text, self._state.config.env)

    # --- results and the cache ---

    async def _cached(self, key: str, config: ImageConfig, created_by: str) -> bool:
        """Take the result of an earlier build, if there is one, or of an image that --cache-from names."""
        image = await self._build.cached(key, self._stage)
        if image is None:
            return bool(created_by) and await self._borrowed(key, config, created_by)
        self._section.cached()
        self._become(image.id, image.config)
        return True

    def _become(self, image: ImageId, config: ImageConfig) -> None:
        self._state.image = image
        self._state.config = config
        self._forget_tree()

    async def _result(
        self, key: str, config: ImageConfig, created_by: str, layer: AsyncIterator[bytes] | None = None
    ) -> None:
        image = await self._build.extend(self._state.image, layer, self._image_step(config, created_by), key)
        self._become(image, config)

    def _image_step(self, config: ImageConfig, created_by: str) -> ImageStep:
        return ImageStep(
            config=config,
            created_by=created_by,
            created=self._build.created,
            author=self._state.author,
            platform=self._build.options.platform if self._state.image is None else None,
        )

    async def _borrowed(self, key: str, config: ImageConfig, created_by: str) -> bool:
        """Take the result from an image that --cache-from names, if one has it."""
        image = await self._build.borrowed(self._state.image, self._image_step(config, created_by), key, self._stage)
        if image is None:
            return False
        self._section.cached()
        self._become(image, config)
        return True

    def _key(self, kind: str, *parts: object) -> str:
        return key_of(kind, self._state.image, self._build.epoch_s, *parts)

    def _nop(self, text: str) -> str:
        return f"{' '.join(config_steps.shell_of(self._state.config))} {NOP}{text}"

    async def _change(self, instruction: Instruction) -> None:
        state = self._state
        if isinstance(instruction, SetText) and instruction.kind == "MAINTAINER":
            state.author = self._expand(instruction.value)
        config, shown = config_steps.changed(state.config, instruction, self._expand)
        if isinstance(instruction, SetCommand):
            if instruction.kind == "CMD":
                state.has_command = True
            elif state.has_command:
                config = replace(config, command=state.config.command)
        key = self._key("config", shown, state.author, repr(config), self._build.platform_text)
        created_by = self._nop(f" {shown}")
        if not await self._cached(key, config, created_by):
            await self._result(key, config, created_by)

    # --- files ---

    async def tree(self) -> Tree:
        """The files of the stage so far."""
        if isinstance(self._tree, EmptyTree) and self._state.image is not None:
            self._tree = await asyncio.to_thread(LayerTree, await self._build.layers(self._state.image))
        return self._tree

    def _forget_tree(self) -> None:
        if isinstance(self._tree, LayerTree):
            self._tree.close()
        self._tree = EmptyTree()

    def _plan(self, base: Tree) -> LayerPlan:
        return LayerPlan(base, now_ns=self._build.now_ns, limit_ns=self._build.limit_ns)

    async def _work_directory(self, instruction: SetText) -> None:
        path = config_steps.working_directory(self._state.config, self._expand(instruction.value))
        config = replace(self._state.config, working_dir=path)
        key = self._key("workdir", path)
        created_by = self._nop(f"WORKDIR {path}")
        if await self._cached(key, config, created_by):
            return
        plan = self._plan(await self.tree())
        await asyncio.to_thread(plan.directory, split(path), owner=(0, 0))
        layer = threaded(plan.pieces()) if plan else None
        await self._result(key, config, created_by, layer)

    async def _copy(self, instruction: Copy) -> None:
        base = await self.tree()
        step = await self._copy_step(instruction, base)
        source = await self._build.tree_of(instruction.source, self._stage)
        async with Copier(step, self._plan(base), source, self._build.directory) as copier:
            await copier.run()
            plan = copier.plan
            digest = await asyncio.to_thread(plan.digest)
            key = self._key("copy", step.keyword, digest)
            created_by = self._nop(f"{step.keyword} {plan.only_kind()}:{digest} in {step.destination} ")
            if not await self._cached(key, self._state.config, created_by):
                layer = threaded(plan.pieces()) if plan else None
                await self._result(key, self._state.config, created_by, layer)

    async def _copy_step(self, instruction: Copy, base: Tree) -> CopyStep:
        expand = self._expand
        destination = expand(instruction.destination)
        if not destination.startswith("/"):
            destination = f"{self._state.config.working_dir or '/'}/{destination}"
        heredocs = {}
        for heredoc in instruction.heredocs:
            variables = self._scope.variables(self._state.config.env)
            heredocs[heredoc.name] = (
                expand_heredoc(heredoc.content, variables, escape=self._build.arguments.escape)
                if heredoc.expand
                else heredoc.content
            )
        chown = expand(instruction.chown)
        return CopyStep(
            keyword="ADD" if instruction.add else "COPY",
            sources=tuple(source if source.startswith("<<") else expand(source) for source in instruction.sources),
            destination=destination,
            heredocs=heredocs,
            from_image=bool(instruction.source),
            owner=await asyncio.to_thread(owner, chown, base) if chown else None,
            chmod=expand(instruction.chmod),
            parents=instruction.parents,
            exclude=tuple(expand(pattern) for pattern in instruction.exclude),
            checksum=expand(instruction.checksum),
            keep_git=instruction.keep_git_dir,
            unpack=instruction.unpack,
            allow_local=self._build.options.network_mode == "host",
        )

    # --- commands ---

    async def _run(self, instruction: Run) -> None:
        build, config = self._build, self._state.config
        if self._state.image is None:
            raise Invalid("RUN needs a file system: FROM scratch has none before the first COPY or ADD")
        network = self._expand(instruction.network)
        _check_run(instruction, network, build.options.network_mode)
        words, scripts = run_words(instruction, config)
        async with AsyncExitStack() as stack:
            mounts = await stack.enter_async_context(
                RunMounts(build.images, build.caches, build.options, build.secrets, self._tree_for_mount)
            )
            await mounts.check(list(instruction.mounts), working_dir=config.working_dir, expand=self._expand)
            mounts.add_scripts(scripts)
            arguments = self._scope.run_arguments(config.env)
            key = self._key("run", words, arguments, network, mounts.result.keys, build.options.runtime)
            created_by = _run_history(words, arguments)
            # What a mount shows is no part of the history, so only the key can tell such RUNs apart.
            if await self._cached(key, config, "" if instruction.mounts else created_by):
                return
            await mounts.make()
            step = RunStep(
                image=self._state.image,
                config=config,
                words=words,
                environment=self._scope.run_environment(config.env),
                network=network,
            )
            unwanted = await asyncio.to_thread(stubs, mounts.targets, await self.tree())
            ran = build.runner.ran(step, build.options, mounts.result, self._section)
            layer = await stack.enter_async_context(ran)
            pieces = filtered(layer, unwanted, limit_ns=build.limit_ns)
            await self._result(key, config, created_by, threaded(pieces))

    async def _tree_for_mount(self, name: str) -> Tree:
        return await self._build.tree_of(name, self._stage)


def _check_run(instruction: Run, network: str, build_network: str) -> None:
    if network not in ("default", "none", "host"):
        raise Invalid(f"invalid network mode {network!r}: it is default, none or host")
    if network == "host" and build_network != "host":
        raise Invalid("RUN --network=host is allowed only where the whole build has it: build with --network host")
    if instruction.security != "sandbox":
        raise Invalid(f"RUN --security={instruction.security} is not allowed: every RUN stays behind its wall")


def run_words(instruction: Run, config: ImageConfig) -> tuple[tuple[str, ...], dict[str, str]]:
    """What a RUN executes, and the scripts (name to text) it needs as files. Pure.

    A command that is a here-document alone is that script, for the interpreter of its first line if it has one;
    otherwise the shell reads the here-documents itself.
    """
    line, heredocs = instruction.command.line, instruction.heredocs
    if not heredocs or not instruction.command.shell:
        return config_steps.words_of(instruction.command, config), {}
    shell = config_steps.shell_of(config)
    first = heredocs[0]
    if len(heredocs) == 1 and re.fullmatch(r"<<-?['\"\\`]?" + re.escape(first.name) + r"['\"]?", line.strip()):
        if first.content.startswith("#!"):
            return (f"{SCRIPTS}/{first.name}",), {first.name: first.content}
        return (*shell, first.content), {}
    bodies = "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in heredocs)
    return (*shell, f"{line}\n{bodies}"), {}


def _run_history(words: tuple[str, ...], arguments: dict[str, str]) -> str:
    text = " ".join(words)
    if not arguments:
        return text
    return f"|{len(arguments)} {' '.join(f'{name}={value}' for name, value in arguments.items())} {text}"
