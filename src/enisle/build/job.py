"""One build: its stages side by side, what they share, and what becomes of their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from enisle.archive.copy import format_time
from enisle.build import graph, squash
from enisle.build.cache import key_of
from enisle.build.context import Context
from enisle.build.layer_plan import LayerPlan, threaded
from enisle.build.layer_tree import LayerTree
from enisle.build.named_contexts import NamedContexts
from enisle.build.options import BuildOptions
from enisle.build.report import Place, Report, Section
from enisle.build.run_step import Runner
from enisle.build.scope import EPOCH, Arguments
from enisle.build.stage import StageBuilder, State, StepFailed
from enisle.build.tree import EmptyTree, Tree
from enisle.cleanup import to_the_end
from enisle.contracts import ImageStep, RegistryAuth
from enisle.engine.completion import DEFAULT_PATH
from enisle.errors import EnisleError, Invalid, NotFound
from enisle.formats.dockerfile.instructions import Dockerfile, Instruction, Pairs, Stage
from enisle.formats.dockerfile.parse import parse
from enisle.formats.reference import parse_reference
from enisle.model.ids import ImageId
from enisle.model.image import Image, ImageConfig, Platform
from enisle.model.numbers import decimal

if TYPE_CHECKING:
    from enisle.build.builder import Builder


class Build:
    """One build. What the stages share."""

    def __init__(
        self, builder: Builder, options: BuildOptions, context: Context, directory: FilePath, report: Report
    ) -> None:
        self._builder = builder
        self.options = options
        self.directory = directory
        self.images = builder.engine.images
        self.caches = builder.caches
        self.secrets = builder.secrets
        self.runner = Runner(builder.engine.instances, directory)
        self._context = context
        self._dockerfile: Dockerfile = parse(context.text)
        self._report = report
        target = options.platform or builder.host
        self.arguments = Arguments(options.arguments, target, builder.host, self._dockerfile.escape)
        self.platform_text = "/".join((target.os, target.architecture, target.variant))
        self.epoch_s = _epoch(options.arguments.get(EPOCH))
        self.limit_ns = None if self.epoch_s is None else self.epoch_s * 1_000_000_000
        self.now_ns = time.time_ns() // 1_000_000_000 * 1_000_000_000 if self.limit_ns is None else self.limit_ns
        self.created = "" if self.limit_ns is None else format_time(self.limit_ns)
        self._steps: list[Instruction] = []
        self._numbers: dict[int, int] = {}  # by id() of the objects in _steps
        self._total = 0
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._builders: dict[int, StageBuilder] = {}
        self._sections: dict[int, Section] = {}
        self._trees: dict[str, Tree] = {}
        self._made: list[ImageId] = []
        self._named = NamedContexts(options.contexts, context.tree, directory, options.client)
        self._sources: list[ImageId] | None = None
        self._sources_lock = asyncio.Lock()
        self._context_lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def run(self, names: list[str]) -> ImageId:
        """Carry it out, name the image, tell."""
        try:
            async with self._named, self._stack:
                image = await self._run()
                await self.images.persist()
                if self.options.keep:
                    self._builder.cache.add_result(image)
                self._warn_unused()
                self._report.built(image)
                for name in names:
                    await self.images.tag(image, name)
                    self._report.tagged(name)
        except asyncio.CancelledError:
            await to_the_end(self._discard())
            raise
        self._report.ended(image)
        return image

    async def _run(self) -> ImageId:
        for instruction in self._dockerfile.arguments:
            self.arguments.declare_global(instruction)
        target = graph.target_index(self._dockerfile, self.options.target)
        needed = graph.needed(self._dockerfile, target, self.arguments.expand_global, self._named)
        labels = self._labels(target)
        self._number(needed, labels)
        self._sections = {index: self._section(index) for index in needed}
        first = self._sections[needed[0]]
        for instruction in self._dockerfile.arguments:
            first.step(instruction, self.place(instruction))
        try:
            state = await self._stage(target)
            if labels is not None:
                state = await self._builders[target].add(labels)
        except StepFailed as error:
            self._report.explain(self._context.text, self._context.name, error.line)
            raise
        finally:
            await to_the_end(self._stop_stages())
        if state.image is None:
            raise Invalid("No image was generated. Is your Dockerfile empty?")
        if self.options.squash:
            return await self._squashed(state.image, self._builders[target].base)
        return state.image

    def _labels(self, target: int) -> Pairs | None:
        """The client's labels as an instruction."""
        if not self.options.labels:
            return None
        pairs = tuple((_literal(name), _literal(value)) for name, value in sorted(self.options.labels.items()))
        text = "LABEL " + " ".join(f"{name}={value}" for name, value in sorted(self.options.labels.items()))
        return Pairs(number=0, text=text, kind="LABEL", pairs=pairs)

    def _number(self, needed: list[int], labels: Instruction | None) -> None:
        steps: list[Instruction] = [*self._dockerfile.arguments]
        for index in needed:
            stage = self._dockerfile.stages[index]
            steps += [stage.base, *stage.instructions]
        steps += [labels] if labels else []
        self._numbers = {id(step): number for number, step in enumerate(steps, 1)}
        self._total = len(steps)
        self._steps = steps

    def place(self, instruction: Instruction) -> Place:
        """The number of a step, and how many there are."""
        return Place(number=self._numbers.get(id(instruction), self._total), total=self._total)

    def _section(self, index: int) -> Section:
        stages = self._dockerfile.stages
        base = self.arguments.expand_global(stages[index].base.image)
        has_image = base != "scratch" and graph.stage_index(self._dockerfile, base, index) is None
        return self._report.section(stages[index], alone=len(stages) == 1, has_image=has_image)

    # --- stages ---

    async def _stage(self, index: int) -> State:
        """The finished stage; built once, however many need it."""
        if index not in self._stages:
            stage = self._dockerfile.stages[index]
            for other in graph.needs(self._dockerfile, stage, self.arguments.expand_global, self._named):
                self._start(other)
            self._start(index)
        return await asyncio.shield(self._stages[index])

    def _start(self, index: int) -> None:
        if index in self._stages:
            return
        stage = self._dockerfile.stages[index]
        for other in graph.needs(self._dockerfile, stage, self.arguments.expand_global, self._named):
            self._start(other)
        section = self._sections.get(index) or self._section(index)
        builder = self._builders[index] = StageBuilder(self, stage, section)
        self._stages[index] = asyncio.create_task(self._finish(builder, section), name=f"build stage {index}")

    async def _finish(self, builder: StageBuilder, section: Section) -> State:
        try:
            state = await builder.run()
        except EnisleError as error:
            section.failed(error)
            raise
        section.end()
        return state

    async def _stop_stages(self) -> None:
        for task in self._stages.values():
            task.cancel()
        await asyncio.gather(*self._stages.values(), return_exceptions=True)

    async def base_state(self, name: str, stage: Stage, section: Section) -> State:
        """What a FROM begins with: a named context, an earlier stage or an image."""
        if name in self._named:
            image_name = self._named.image(name)
            if not image_name:
                return await self._files_as_base(name, stage)
            name, index = image_name, None
        else:
            index = None if name.isdigit() else graph.stage_index(self._dockerfile, name, stage.index)
        if index is not None:
            state = await self._stage(index)
            return State(image=state.image, config=state.config, author=state.author)
        image = await self._image(name, section.message, _platform(self.arguments.expand_global(stage.base.platform)))
        return State(image=image.id, config=image.config, author=image.author)

    async def _files_as_base(self, name: str, stage: Stage) -> State:
        """A named context's files as an image of one layer."""
        plan = LayerPlan(EmptyTree(), now_ns=self.now_ns, limit_ns=self.limit_ns)
        tree = await self._named.tree(name)
        await asyncio.to_thread(plan.take, tree)
        config = ImageConfig(env=(DEFAULT_PATH,))
        key = key_of("context", await asyncio.to_thread(plan.digest), self.epoch_s, self.platform_text)
        found = await self.cached(key, stage)
        if found is None:
            step = ImageStep(config=config, created_by=f"FROM {name}", created=self.created)
            image = await self.extend(None, threaded(plan.pieces()), step, key)
            return State(image=image, config=config)
        return State(image=found.id, config=found.config)

    async def _image(
        self,
        name: str,
        progress: Callable[[dict[str, Any]], None],
        platform: Platform | None,
        *,
        pull: bool | None = None,
    ) -> Image:
        platform = platform or self.options.platform
        if not (self.options.pull if pull is None else pull):
            try:
                return await self._claimed(name, platform)
            except NotFound:
                pass
        auth = await _credentials(self.options, name)
        pulled = await self.images.pull(name, platform=platform, auth=auth, progress=progress)
        return await self._claimed(pulled.id)

    async def _claimed(self, name: str, platform: Platform | None = None) -> Image:
        """An image that stays until the build ends."""
        image = await self.images.claim(name, platform)
        self._stack.callback(self.images.release, image.id)
        return image

    # --- what stages ask for ---

    async def need_whole_context(self) -> None:
        """Instructions of a base image may name any file: the Dockerfile does not tell which."""
        async with self._context_lock:
            if self._context.whole is not None:
                tree = await self._stack.enter_async_context(self._context.whole())
                self._context = replace(self._context, tree=tree, whole=None)

    async def tree_of(self, name: str, stage: Stage) -> Tree:
        """The files a --from names: a stage, an image; "" is the context."""
        if not name:
            return self._context.tree
        if name in self._named:
            if not self._named.image(name):
                return await self._named.tree(name)
            name, index = self._named.image(name), None
        else:
            index = graph.stage_index(self._dockerfile, name, stage.index)
        if index is not None:
            image = (await self._stage(index)).image
        elif name.isdigit():
            raise Invalid(f"invalid from flag value {name}: invalid context: no such stage before this one")
        elif name == "scratch":
            return EmptyTree()
        else:
            section = self._sections[stage.index]
            image = (await self._image(name, section.message, None)).id
        if image is None:
            return EmptyTree()
        if image not in self._trees:
            tree = await asyncio.to_thread(LayerTree, await self.layers(image), image)
            self._trees[image] = tree
            self._stack.callback(tree.close)
        return self._trees[image]

    async def layers(self, image: ImageId) -> list[FilePath]:
        """Unpacked layers, topmost first."""
        return await self.images.layers(image)

    async def cached(self, key: str, stage: Stage) -> Image | None:
        """The result of a step in an earlier build, if it is still there. As with dockerd's builder, --cache-from says
        which images may be used, and no others."""
        if self._anew(stage) or (self.options.cache_from and not self.options.also_own_cache):
            return None
        found = self._builder.cache.get(key)
        if found is None:
            return None
        try:
            image = await self._claimed(found)
        except NotFound:
            return None
        self._builder.cache.touch(key)
        return image

    def _anew(self, stage: Stage) -> bool:
        options = self.options
        names = (stage.base.name.lower(), str(stage.index))
        return options.no_cache or any(name.lower() in names for name in options.no_cache_stages)

    async def borrowed(self, parent: ImageId | None, step: ImageStep, key: str, stage: Stage) -> ImageId | None:
        """The result of a step from one of the images that --cache-from names."""
        if self._anew(stage) or not self.options.cache_from:
            return None
        async with self._sources_lock:
            if self._sources is None:
                self._sources = await self._cache_sources()
        for source in self._sources:
            image = await self.images.borrow(parent, source, step)
            if image is not None:
                self._keep(image, key, step)
                return image
        return None

    async def _cache_sources(self) -> list[ImageId]:
        found: list[ImageId] = []
        for name in self.options.cache_from:
            try:
                found.append((await self._image(name, lambda _: None, None, pull=False)).id)
            except EnisleError as error:
                self._report.warn(f"{name} is no source of the cache: {error}")
        return found

    def _keep(self, image: ImageId, key: str, step: ImageStep) -> None:
        self.images.hold(image)
        self._stack.callback(self.images.release, image)
        self._made.append(image)
        self._builder.cache.put(key, image, step.created_by)

    async def extend(
        self, parent: ImageId | None, layer: AsyncIterator[bytes] | None, step: ImageStep, key: str
    ) -> ImageId:
        """The result of a step that was carried out, remembered for later builds."""
        image = await self.images.extend(parent, layer, step)
        self._keep(image, key, step)
        return image

    async def _squashed(self, image: ImageId, base: ImageId | None) -> ImageId:
        upper, lower = await self.layers(image), await self.layers(base) if base else []
        own = len(upper) - len(lower)
        if own <= 1:
            return image
        whole, below = LayerTree(upper), LayerTree(lower)
        try:
            made = await self.images.squash(image, base, threaded(squash.merged(whole, below, own)))
        finally:
            whole.close()
            below.close()
        self.images.hold(made)
        self._stack.callback(self.images.release, made)
        self._made.append(made)
        return made

    async def _discard(self) -> None:
        """A build that was called off leaves nothing: what it has made goes again."""
        for image in reversed(self._made):
            await self.images.discard(image)
        self._builder.cache.forget(self._made)

    # --- messages ---

    def _warn_unused(self) -> None:
        if unused := self.arguments.unused():
            self._report.warn(f"One or more build-args {unused} were not consumed")


def _literal(text: str) -> str:
    """Text that expands to itself."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _epoch(text: str | None) -> int | None:
    if not text:
        return None
    seconds = decimal(text)
    if seconds is None or seconds >= 1 << 33:
        raise Invalid(f"{EPOCH}={text[:40]} is no time in seconds")
    return seconds


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise Invalid(f'"{text[:60]}" is an invalid platform')
    if len(parts) == 1:
        return Platform(architecture=parts[0])
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


async def _credentials(options: BuildOptions, name: str) -> RegistryAuth | None:
    reference = parse_reference(name)
    for registry in (reference.domain, f"https://{reference.domain}/", f"https://{reference.domain}"):
        if registry in options.credentials:
            return options.credentials[registry]
    if reference.domain == "docker.io":
        found = options.credentials.get("https://index.docker.io/v1/")
        if found is not None:
            return found
    return await options.client.credentials(reference.domain) if options.client is not None else None
