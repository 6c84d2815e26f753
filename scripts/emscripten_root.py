"""Makes a small root folder with Emscripten and Python in it, from Debian's packages.

Debian's stable release has no Emscripten that matches Pyodide's, and its Python is too old for
pyodide-build; the coming release has both. Its packages are downloaded by an apt of their own
(own sources, lists and cache; the system's package database is neither read nor changed) and
unpacked into a folder. No maintainer script runs, and nothing is installed on the machine.

Commands run inside with `unshare` and `chroot`, as root or, with user namespaces, as anybody.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# The release to take packages from. It moves until it is stable, and Emscripten with it; what
# must not change with it is checked by running the result in the browser.
SUITE = os.environ.get("HOLDFAST_DEBIAN_SUITE", "forky")
PACKAGES = (
    *("emscripten", "python3-venv", "make", "libsqlite3-dev"),
    *("dash", "coreutils", "sed", "base-files"),
)
MERGED = ("bin", "sbin", "lib", "lib64")

# The mount namespace gives the folder the machine's /dev and /proc for the command's duration.
# chroot is where only root looks for programs, and the namespace's root may be anybody.
ENTER = """
PATH=$PATH:/usr/sbin:/sbin
for name in dev proc; do mount --rbind "/$name" "$1/$name"; done
folder=$1; shift
exec chroot "$folder" "$@"
"""


def make_root(folder: Path) -> None:
    """Fill `folder`, unless an earlier call with the same packages did."""
    wanted = f"{SUITE}: {' '.join(PACKAGES)}\n"
    stamp = folder / "holdfast-packages"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tmp", "proc", "dev", "root"):
        (folder / name).mkdir(parents=True)
    for name in MERGED:
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(prefix="holdfast-apt-") as work:
        for package in _download(Path(work)):
            archive = subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
            )
            # Packages that still name /bin or /lib must go through the links, not replace them.
            subprocess.run(
                ["tar", "-C", folder, "--keep-directory-symlink", "--no-same-owner", "-xf", "-"],
                stdin=archive.stdout,
                check=True,
            )
            if archive.wait() != 0:
                raise SystemExit(f"error: {package.name} cannot be unpacked")
    # The one thing that a maintainer script would have made: without it pip does not start.
    authorities = sorted((folder / "usr" / "share" / "ca-certificates").rglob("*.crt"))
    bundle = folder / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(file.read_text() for file in authorities))
    stamp.write_text(wanted)


def python_version(folder: Path) -> str:
    """The version of the folder's Python, as "3.14"."""
    (library,) = (folder / "usr" / "lib").glob("python3.*")
    return library.name.removeprefix("python")


def run_inside(
    folder: Path, command: Sequence[str], environment: Mapping[str, str], cwd: str = "/"
) -> None:
    """Run `command` with `folder` as its root folder, and nothing of this environment."""
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace.append("--map-root-user")
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        raise SystemExit(
            "error: no mount namespace can be made here, so Emscripten cannot be run in its "
            "folder. Run as root, or where user namespaces are allowed."
        )
    variables = [f"{name}={value}" for name, value in environment.items()]
    inner = ["/usr/bin/env", "-i", f"--chdir={cwd}", *variables, *command]
    enter = [*namespace, "sh", "-ec", ENTER, "sh", str(folder)]
    status = subprocess.run([*enter, *inner], check=False).returncode
    if status != 0:
        raise SystemExit(f"error: in {folder}, `{shlex.join(command)}` ended with status {status}")


def _download(work: Path) -> list[Path]:
    """The .deb files of PACKAGES and all that they depend on."""
    uri = _mirror()
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    # Empty: to this apt nothing is installed, so every dependency is downloaded.
    (work / "status").touch()
    keyrings = [
        f"/usr/share/keyrings/debian-archive-keyring.{ending}"
        for ending in ("pgp", "gpg")
        if os.path.exists(f"/usr/share/keyrings/debian-archive-keyring.{ending}")
    ]
    option = f"[signed-by={keyrings[0]}] " if keyrings else ""
    (work / "sources.list").write_text(f"deb {option}{uri} {SUITE} main\n")
    settings = {
        "Dir::State": work,
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
    }
    config = work / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    environment = {**os.environ, "APT_CONFIG": str(config)}
    for words in (("update",), ("install", "--yes", "--download-only", *PACKAGES)):
        subprocess.run(["apt-get", "--quiet=2", *words], env=environment, check=True)
    return sorted((work / "cache" / "archives").glob("*.deb"))


def _mirror() -> str:
    """The address that this machine's own apt has for Debian."""
    if shutil.which("apt-get") is None:
        raise SystemExit(
            "error: this takes Emscripten from Debian's packages, and there is no apt-get here. "
            "With Emscripten and pyodide-build installed, `pyodide build` does the same."
        )
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(COMPONENT) $(REPO_URI)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for line in lines:
        label, component, uri = line.split(" ", 2)
        if (label, component) == ("Debian", "main"):
            return uri
    raise SystemExit(
        "error: apt has no list of Debian's packages. Run `apt-get update` once, as root."
    )


if __name__ == "__main__":
    make_root(Path(sys.argv[1]).resolve())
