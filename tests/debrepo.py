"""A Debian archive of our own on localhost, and packages in it."""

import contextlib
import hashlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Serves without a line on standard error for each request."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Serves `folder`/repository; gives that and a configuration for which apt knows no other.

    apt keeps everything in the folder, so no step needs root.
    """
    root = folder / "repository"
    root.mkdir()
    apt = folder / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    (apt / "sources.list").write_text(f"deb [trusted=yes] {url} ./\n")
    (apt / "apt.conf").write_text(
        f'Dir::State::Lists "{apt}/lists";\n'
        f'Dir::Cache "{apt}";\n'
        f'Dir::Etc::SourceList "{apt}/sources.list";\n'
        'Dir::Etc::SourceParts "/dev/null";\n'
        'APT::Sandbox::User "root";\n'
    )
    try:
        yield root, apt / "apt.conf"
    finally:
        server.shutdown()
        server.server_close()


def publish(
    root: Path, package: str, version: str, files: dict[str, bytes], depends: str = ""
) -> None:
    """Adds a package to the archive, in place of other versions of it."""
    for old in root.glob(f"{package}_*"):
        old.unlink()
    tree = root.parent / f"{package}-{version}"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    control = (
        f"Package: {package}\nVersion: {version}\nArchitecture: all\n"
        f"Maintainer: nobody <nobody@localhost>\nDescription: made for a test\n"
    )
    control += f"Depends: {depends}\n" if depends else ""
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(control)
    deb = root / f"{package}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    content = deb.read_bytes()
    stanza = (
        f"{control}Filename: ./{deb.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n"
    )
    (root / f"{package}_stanza").write_text(stanza)
    stanzas = sorted(root.glob("*_stanza"))
    index = root / "Packages"
    time = index.stat().st_mtime + 10 if index.exists() else 1e9
    index.write_text("".join(path.read_text() for path in stanzas))
    os.utime(index, (time, time))  # HTTP's If-Modified-Since cannot tell times in one second apart
