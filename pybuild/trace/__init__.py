"""Traces a source: runs its flat binary as its contract says, and says what became of the contract.

for traced in traces(tree, "i386/relocator"):
print(traced.title, traced.kept, [str(promise) for promise in traced.broken])
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pybuild.assembler import Tree
from pybuild.emulate.activation import Finding
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.run import Outcome
from pybuild.emulate.steps import Recorded, record
from pybuild.emulate.verdict import Promise, judge, unlike
from pybuild.trace.scene import Scene
from pybuild.trace.scenes import scenes


@dataclass(frozen=True)
class Traced:
    """A run of a source and the verdict on it.

    Attributes:
        scene: how it began.
        run: each of its steps.
        promises: what became of all that the contract promises.
    """

    scene: Scene
    run: Recorded
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
    return Traced(scene, run, promises)
