# Sourced by the scripts: goes to the top of the clone, checks for Rust, installs the system packages that are missing.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || fail "no cargo; install Rust first (https://rustup.rs)"

# RocksDB and the allocator are compiled from their crates: a C++ compiler, make, and libclang for RocksDB's bindings.
need_packages() {
    local missing=()
    command -v c++ >/dev/null || missing+=(g++)
    command -v cc >/dev/null || missing+=(gcc)
    command -v make >/dev/null || missing+=(make)
    # The dynamic library and clang's own headers.
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null \
        || missing+=(libclang-dev)
    compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null \
        || compgen -G '/usr/lib/clang/*/include/stddef.h' >/dev/null || missing+=(libclang-dev)
    [ ${#missing[@]} -gt 0 ] || return 0
    local install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if [ "$(id -u)" = 0 ]; then
        say "Installing system packages: ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq; } >&2
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        say "Installing system packages with sudo: ${missing[*]}"
        { sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq; } >&2
    else
        fail "system packages are missing; run this, then try again:
    sudo apt-get update && sudo ${install[*]}"
    fi
}

need_packages

# want PACKAGE…: what some tests use where it is there; they say SKIPPED without it. Only root installs it unasked.
want() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ]; then
        say "Installing what some tests use: ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
            >&2 && return
    fi
    say "Tests that use these will be SKIPPED: ${missing[*]}   (sudo apt-get install ${missing[*]})"
}

target=${CARGO_TARGET_DIR:-$PWD/target}

tools="$target/tools"
export PATH="$tools/bin:$PATH"
# Installs a tool that cargo can build, unless it is there: tool NAME VERSION
tool() {
    command -v "$1" >/dev/null && return
    say "Installing $1 $2"
    # A target directory of its own: the tool's build must not touch the workspace's. Not optimised: it runs for a moment, and
    # compiling it takes minutes.
    CARGO_TARGET_DIR="$tools/target" cargo install --debug --locked --quiet --root "$tools" --version "$2" "$1"
    rm -rf "$tools/target"
}
