#!/bin/sh
# Makes sure that the system has what the build and the tests need, and installs what is
# missing with apt: `need.sh build browser`. Quiet when nothing is.
set -eu
cd "$(dirname "$0")/.."

missing=
lacks() { missing="$missing $*"; }
has() { command -v "$1" >/dev/null 2>&1; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

python=${PYTHON:-python3}
has "$python" || fail "$python is not on PATH. Install Python 3.11 or newer, or set PYTHON."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: Python 3.11 or newer is needed. Set PYTHON to one."

for what in "$@"; do
    case $what in
    build)
        # Debian's python3 comes without these two until python3-venv is there.
        "$python" -c 'import ensurepip, venv' 2>/dev/null || lacks python3-venv
        "$python" src/holdfast/vfs/build.py headers >/dev/null 2>&1 || lacks libsqlite3-dev
        ;;
    node)
        has node && has npm || fail "node and npm are not on PATH. Install Node 20 or newer."
        [ "$(node -p "process.versions.node.split('.')[0]")" -ge 20 ] ||
            fail "node $(node --version) is too old: Node 20 or newer is needed."
        ;;
    compiler)
        # The VFS is compiled natively too, for the tests on CPython.
        has "${CC:-cc}" || lacks gcc libc6-dev
        ;;
    browser)
        has chromium || [ -n "${CHROMIUM:-}" ] || lacks chromium
        has chromedriver || [ -n "${SE_CHROMEDRIVER:-}" ] || lacks chromium-driver
        ;;
    firefox) has firefox || has firefox-esr || [ -n "${FIREFOX:-}" ] || lacks firefox-esr ;;
    webkit)
        has WebKitWebDriver || [ -n "${WEBKITWEBDRIVER:-}" ] || lacks webkit2gtk-driver
        has Xvfb || [ -n "${XVFB:-}" ] || lacks xvfb
        ;;
    *) fail "need.sh knows build, node, compiler, browser, firefox and webkit, not $what" ;;
    esac
done

[ -n "$missing" ] || exit 0
has apt-get || fail "missing, by Debian's names:$missing. Install them with your package manager."
if [ "$(id -u)" = 0 ]; then
    as_root=
elif has sudo; then
    as_root=sudo
else
    fail "missing:$missing. Neither root nor sudo here: ask for 'apt-get install$missing'."
fi
echo "Installing with apt:$missing"
$as_root apt-get update -q
# shellcheck disable=SC2086  # one word per package
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
