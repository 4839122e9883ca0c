"""Kernel images with a head, run and held to what is promised."""

from held import TREE, load, meets_needs

from pybuild.assembler import Tree
from pybuild.emulate import headboot
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.headboot import Boot
from pybuild.emulate.machine import Hardware
from pybuild.emulate.run import Outcome, execute


def start(boot: Boot, hardware: Hardware | None = None, tree: Tree = TREE) -> Outcome:
    """Runs it, and no more."""
    placed = boot.placed(*(load(name, tree) for name in boot.sources))
    return execute(
        boot.start(placed, hardware),
        trace=boot.trace,
        explain=tree is TREE,  # what is wrong in another is known
        budget=3_000_000 + 8 * boot.made.plan.len + 8 * boot.made.plan.initrd_size,
    )


def hold_head(boot: Boot, tree: Tree = TREE) -> Outcome:
    """Runs an image; raises ContractError unless the kernel then finds all that it should."""
    _, relocator = boot.placed(*(load(name, tree) for name in boot.sources))
    names = {**relocator.symbols, "$$": relocator.base, boot.pointer: boot.boot_params}
    if not meets_needs(relocator.terms, names):
        raise ContractError(f"the relocator does not get what it needs: {names}")
    outcome = start(boot, tree=tree)
    try:
        headboot.hold(boot, outcome)
    except ContractError as error:
        raise ContractError(f"{error}, of {boot}, {boot.places}") from error
    return outcome
