"""The commands in the documents do what the documents say."""

from pathlib import Path

import documented
import pytest
from copied import copy_project, environment
from documented import Command, fits

from pybuild.paths import ROOT


@pytest.mark.parametrize(("name", "least"), [("new-architecture", 20)])
def test_every_command_of_a_document(tmp_path: Path, name: str, least: int) -> None:
    tree = copy_project(tmp_path / "tree")
    assert documented.hold(ROOT / f"docs/{name}.md", tree, environment(tree)) >= least


DOCUMENT = """\
# A document

```sh
mkdir a
cat >a/b <<'END'
$ no prompt
END
```

Prose, `inline code`, and what is no command:

```toml
bits = 32
```

1. In a list:

   ```console
   $ cat a/b
   $ no prompt
   ```

```console status=1
$ echo '
> one'

one
$ echo one; echo two; false
one
...
```
"""


def test_the_reader(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text(DOCUMENT.replace("   $ no", "   ...no"))
    script = "mkdir a\ncat >a/b <<'END'\n$ no prompt\nEND\n"
    assert list(documented.commands(document)) == [
        Command("some.md:3", script, None, 0),
        Command("some.md:18: cat a/b", "cat a/b\n", "...no prompt\n", 0),
        Command("some.md:23: echo '", "echo '\none'\n", "\none\n", 0),
        Command(
            "some.md:23: echo one; echo two; false",
            "echo one; echo two; false\n",
            "one\n...\n",
            1,
        ),
    ]
    assert documented.hold(document, tmp_path, {}) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mkdir a", "mkdir a/b", "some.md:3: ends with 1, and prints:\nmkdir: cannot"),
        ("mkdir a", "mkdir a; false", "some.md:3: ends with 1"),
        ("   $ no", "   % no", "some.md:18: cat a/b: ends with 0, and prints:\n\\$ no prompt\n"),
        ("two; false", "two", "some.md:23: .*: ends with 0, and prints:\none\ntwo\n"),
        ("\none\n...", "\ntwo\n...", "expected:\ntwo\n"),
        ("$ echo '\n", "echo '\n", "some.md:23: the block does not begin with a command"),
    ],
)
def test_what_is_not_as_the_document_says(tmp_path: Path, old: str, new: str, message: str) -> None:
    document = tmp_path / "some.md"
    document.write_text(DOCUMENT.replace("   $ no", "   ...no").replace(old, new))
    if old == "   $ no":
        document.write_text(DOCUMENT.replace(old, new))
    with pytest.raises(AssertionError, match=message):
        documented.hold(document, tmp_path, {})


@pytest.mark.parametrize(
    ("shown", "printed", "does"),
    [
        ("", "", True),
        ("", "a\n", False),
        ("a\n", "a\n", True),
        ("a\n", "a  \n\n", True),
        ("a\n", "ab\n", False),
        ("a.c\n", "abc\n", False),
        ("a...c\n", "ac\n", True),
        ("a...c\n", "abbc\n", True),
        ("a...c\n", "ab\nc\n", False),
        ("a\n...\nc\n", "a\nc\n", True),
        ("a\n...\nc\n", "a\nb\nb\nc\n", True),
        ("a\n...\nc\n", "a\nb\n", False),
        ("...\nc\n", "a\nb\nc\n", True),
        ("a\n...\n", "a\nb\nc\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n...\n", "ab\n", False),
        ("...\n", "", True),
        ("...\nb\n...\n", "a\nb\nc\n", True),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, does: bool) -> None:
    assert fits(shown, printed) is does
