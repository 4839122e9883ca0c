"""Traces a source: runs its flat binary as its contract says, and says what became of the contract.

for judged in verdicts(tree, "i386/relocator"):
    print(judged.title, judged.kept, [str(promise) for promise in judged.broken])
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pybuild.assembler import Tree
from pybuild.emulate.activation import Finding
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.run import Outcome, execute
from pybuild.emulate.steps import MOST_STEPS, Recorded, record
from pybuild.emulate.verdict import Promise, judge, unlike
from pybuild.trace.scene import Scene
from pybuild.trace.scenes import scenes


@dataclass(frozen=True)
class Judged:
    """The verdict on a run of a source.

    Attributes:
        scene: how it began.
        promises: what became of what the contract promises; of a run that kept all of it and that
            nobody recorded, nothing.
    """

    scene: Scene
    promises: list[Promise]

    @property
    def title(self) -> str:
        """What is special about this run; empty if nothing is."""
        return self.scene.title

    @property
    def broken(self) -> list[Promise]:
        """The promises that were not kept."""
        return [promise for promise in self.promises if promise.finding.wrong]

    @property
    def kept(self) -> bool:
        """Whether the contract was kept."""
        return not self.broken


@dataclass(frozen=True)
class Traced(Judged):
    """The verdict on a run of a source, and the run.

    Attributes:
        run: each of its steps.
    """

    run: Recorded


def traces(tree: Tree, name: str, given: Mapping[str, int] = MappingProxyType({})) -> list[Traced]:
    """Runs a source's flat binary, which must be up to date, in the scenes that scenes.py has.

    Args:
        tree: where the source and its flat binary are.
        name: `<arch>/<name>`.
        given: values of symbols, and of registers on entry; the others get defaults.

    Raises:
        InputError: a name or a value in `given` is wrong, or the source cannot be run alone.
        BuildError: the flat binary or its line table is missing or damaged.
    """
    return [_traced(scene) for scene in scenes(tree, name, given)]


def verdicts(
    tree: Tree, name: str, given: Mapping[str, int] = MappingProxyType({})
) -> list[Judged]:
    """The same in a part of the time: recorded are the first run and those that break the contract.

    They are what people look at. Behind one that never ends there are no others.
    """
    judged: list[Judged] = []
    for scene in scenes(tree, name, given):
        if judged and _is_kept(scene):
            judged.append(Judged(scene, []))
            continue
        traced = _traced(scene)
        judged.append(traced)
        if traced.run.exhausted:
            break
    return judged


def _is_kept(scene: Scene) -> bool:
    """Whether a run keeps the contract; if that takes recording, it does not."""
    start = scene.start
    if start.hardware or len(start.placed) > 1:
        return False
    turns = sum(len(data) for data in start.memory.stretches.values())
    try:
        outcome = execute(start, trace=False, budget=MOST_STEPS + turns, explain=False)
        if scene.hold:
            scene.hold(outcome)
    except ContractError:
        return False
    return True


def _traced(scene: Scene) -> Traced:
    run = record(scene.start)
    promises = judge(run)
    if scene.hold and not any(promise.finding.wrong for promise in promises):
        try:
            scene.hold(Outcome.of(run.machine, run.after))
        except ContractError as error:
            promises.append(unlike(run, scene.promise, error))
        else:
            if scene.promise:
                promises.append(Promise(Finding("", scene.promise, None), scene.start.placed[0]))
    return Traced(scene, promises, run)
