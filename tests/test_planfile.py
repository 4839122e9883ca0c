"""A plan that is read back from its JSON is the plan; anything else is refused, and no crash."""

import json

import pytest
from fakekernel import probe
from hypothesis import given
from hypothesis import strategies as st

from pybuild import build, planfile
from pybuild.build import Order
from pybuild.plan import Plan


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    folder = tmp_path_factory.mktemp("plans")
    kernels = [probe(name, folder) for name in ("2.10", "relocatable", "zimage")]
    orders = [
        Order(path, cmdline="quiet", machine=machine, target=target)
        for path in kernels
        for machine, target in (("pc", "disk"), ("xen-hvm", "ram"))
    ]
    return [build.prepare(order).plan for order in orders]


def test_it_is_the_plan_again(plans: list[Plan]) -> None:
    for plan in plans:
        assert planfile.parse(plan.to_json()) == plan
        assert planfile.parse(plan.to_json().encode()) == plan


def nodes(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path]
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            found += nodes(each, (*path, key))
    return found


@given(data=st.data())
def test_what_is_no_plan_is_refused(plans: list[Plan], data: st.DataObject) -> None:
    plan = data.draw(st.sampled_from(plans))
    found = json.loads(plan.to_json())
    *way, last = data.draw(st.sampled_from(nodes(found)[1:]))
    place = found
    for key in way:
        place = place[key]
    wrong = st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.none(), min_size=1)
    place[last] = data.draw(wrong)
    try:
        again = planfile.parse(json.dumps(found))
    except ValueError:
        return
    assert json.loads(again.to_json()) == found


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", b"\xff", "[" * 100_000])
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        planfile.parse(text)
