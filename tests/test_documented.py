"""What runs a document's commands finds them, and finds what is not as the document says."""

from pathlib import Path

import documented
import pytest
from documented import Command, fits

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

```sh only=root
cat /nowhere
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
        Command("some.md:33", "cat /nowhere\n", None, 0, "root"),
    ]
    assert documented.hold(document, tmp_path, {}) == 5


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


def test_what_is_asked_for_is_run(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text("```sh only=root\ncat /nowhere\n```\n")
    with pytest.raises(AssertionError, match=r"some.md:1: ends with 1, and prints:\ncat: /nowhere"):
        documented.hold(document, tmp_path, {}, asked={"root"})
    assert documented.hold(document, tmp_path, {}, asked={"root"}, instead={"cat": "echo"}) == 1


def test_what_is_not_run_is_read(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text("```sh only=root\nif true\n```\n")
    with pytest.raises(AssertionError, match=r"some.md:1: ends with 2, .*\nbash: .* syntax"):
        documented.hold(document, tmp_path, {})


def test_other_words_are_in_the_output_too(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text("```console\n$ echo /dev/sdX\n/dev/sdX\n```\n")
    assert documented.hold(document, tmp_path, {}, instead={"/dev/sdX": "a"}) == 1


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
        ("seen after 9.1 s: it\n", "seen after 12.3 s: it\n", True),
        ("seen after 9.1 s: it\n", "seen after 12 s: it\n", False),
        ("9.1 so\n", "9.2 so\n", False),
        ("a\nb\n", "a\n\nbootsplice: loading 9%\nbootsplice: loading 100%\nb\n", True),
        ("a\nb\n", "a\nbootsplice: loading 9\nb\n", False),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, does: bool) -> None:
    assert fits(shown, printed) is does
