# shellcheck shell=bash
# The set-up shared by scripts/run, scripts/test and scripts/check: find a Python, fill .venv.
#
# .venv/installed/ is a stamp: it holds the version of .venv's Python and a copy of every installed
# requirements file. It is removed before pip starts and restored, with one rename, after pip succeeded.
# An interrupted set-up therefore has no stamp and is repeated; a complete one is recognised without pip
# and network within some tens of milliseconds.
#
# All messages go to stderr, because stdout belongs to the programs that the scripts start.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=$root/.venv

# An empty HOME would make pip keep its cache in /.cache.
if [ -z "${HOME:-}" ]; then unset HOME; fi
# Another Python's packages (ROS puts its own there) would be found before those of .venv.
unset PYTHONPATH PYTHONHOME

say() {
    printf '%s\n' "$@" >&2
}

die() {
    say "$@"
    exit 1
}

# Prints "3.11.7 64" for a working interpreter; fails for a pyenv shim without a Python and the like.
# Must run on any Python, however old.
describe_python() {
    "$1" -E -c 'import struct, sys
print("%d.%d.%d %d" % (sys.version_info[0], sys.version_info[1], sys.version_info[2], struct.calcsize("P") * 8))' 2>/dev/null
}

in_range() {
    case $1 in 3.10.* | 3.11.* | 3.12.* | 3.13.*) return 0 ;; *) return 1 ;; esac
}

refuse_32_bit() {
    die "$1" \
        "The speech engine comes as wheels for 64-bit x86_64 and aarch64 only; there are none for 32-bit." \
        "Install a 64-bit system (on a Raspberry Pi 3 or newer: 'Raspberry Pi OS (64-bit)') and try again."
}

# Sets $python to the first suitable interpreter.
find_python() {
    local candidate candidates found bits seen='' narrow=''
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    else
        candidates=(python3 python3.13 python3.12 python3.11 python3.10)
    fi
    for candidate in "${candidates[@]}"; do
        found=$(describe_python "$candidate") || continue
        bits=${found#* } found=${found% *}
        if ! in_range "$found"; then
            seen="${seen:+$seen, }$candidate is Python $found"
        elif [ "$bits" != 64 ]; then
            narrow="$candidate is a 32-bit Python $found."
        else
            python=$candidate python_version=$found
            return
        fi
    done
    if [ -n "$narrow" ]; then refuse_32_bit "$narrow"; fi
    if [ -n "${PYTHON:-}" ]; then
        die "PYTHON=$PYTHON is not suitable: ${seen:-it does not start as a Python}." \
            "Name a Python 3.10, 3.11, 3.12 or 3.13, or unset PYTHON to have one looked for."
    fi
    die "node-whisper needs Python 3.10, 3.11, 3.12 or 3.13, and there is none on PATH${seen:+ ($seen)}." \
        "Install one (Debian, Ubuntu, Raspberry Pi OS: 'sudo apt install python3 python3-venv')," \
        "or name one that PATH does not reach: PYTHON=/path/to/python3.12 $0"
}

# Succeeds if .venv was once complete and its Python is still the original one (a system upgrade can
# replace it) and the requested one. Sets $python_version.
is_sound() {
    local found
    [ -d "$venv/installed" ] && found=$(describe_python "$venv/bin/python") || return 1
    [ "$found" = "$(<"$venv/installed/python") 64" ] || return 1
    if [ -n "${PYTHON:-}" ] && [ "$(describe_python "$PYTHON")" != "$found" ]; then return 1; fi
    python_version=${found% *}
}

is_complete() {
    local file
    is_sound || return 1
    for file; do
        [ -f "$venv/installed/$file" ] || return 1
        [ "$(<"$root/$file")" = "$(<"$venv/installed/$file")" ] || return 1
    done
}

make_venv() {
    find_python
    if ! "$python" -I -c 'import ensurepip, venv' 2>/dev/null; then
        die "$python (Python $python_version) cannot make a virtual environment: its venv or ensurepip is missing." \
            "Debian, Ubuntu, Raspberry Pi OS: 'sudo apt install python3-venv' (or python${python_version%.*}-venv), then try again."
    fi
    if [ -e "$venv" ]; then say "Making .venv again: it was incomplete, or made with another Python."; fi
    "$python" -I -m venv --clear "$venv" >&2 ||
        die "Could not make $venv: see above. Check the free disk space and your write permission there."
}

# set_up FILE...: installs the packages of these requirements files (names in the root of the clone) into
# .venv, and keeps those of an earlier set-up.
set_up() {
    local machine
    machine=$(uname -m)
    case $machine in
        i?86 | x86 | arm | armhf | armv*) refuse_32_bit "This system is 32-bit ($machine)." ;;
    esac
    if is_complete "$@"; then return; fi
    # Two set-ups at once (scripts/run and scripts/test in two terminals) would disturb each other.
    if command -v flock >/dev/null; then
        exec 9<"$root/requirements.txt"
        if ! flock -n 9; then
            say "Another set-up of .venv is running: waiting for it ..."
            flock 9
        fi
    fi
    if ! is_complete "$@"; then install "$@"; fi
    exec 9<&-
}

# set_up_media: installs PyAV for recordings of phones and browsers, after set_up. A node without it runs
# all the same, so a failure (no wheel for this system) is reported once and not tried again.
set_up_media() {
    local file=requirements-media.txt missing=$venv/without-media
    if [ ! -f "$root/$file" ] || is_complete "$file"; then return; fi
    if [ -f "$missing" ] && [ "$(<"$missing")" = "$(<"$root/$file")" ]; then return; fi
    if command -v flock >/dev/null; then
        exec 9<"$root/requirements.txt"
        flock 9
    fi
    if ! is_complete "$file"; then
        say "Installing $file into .venv (36 MB, once; --media off leaves it out) ..."
        if install_with_pip -r "$root/$file"; then
            rm -f -- "$missing"
            cp -- "$root/$file" "$venv/installed/$file"
        else
            cp -- "$root/$file" "$missing"
            say "The node starts without PyAV and rejects m4a, webm and the like. To try again:" \
                "$venv/bin/python -m pip install -r $root/$file"
        fi
    fi
    exec 9<&-
}

# Installs what the tests and the type checker import, which includes the node's optional packages.
set_up_for_tests() {
    local name files=(requirements.txt requirements-test.txt)
    for name in announce convert queue; do
        if [ -f "$root/requirements-$name.txt" ]; then files+=("requirements-$name.txt"); fi
    done
    set_up "${files[@]}"
    set_up_media
}

# install_with_pip ARGUMENT...: installs wheels only.
install_with_pip() {
    local options=(--disable-pip-version-check --no-input --only-binary :all:)
    if [ ! -t 2 ]; then options+=(-q); fi
    if [ -z "${HOME:-}" ]; then options+=(--no-cache-dir); fi
    PIP_USER=0 "$venv/bin/python" -I -m pip install "${options[@]}" "$@" >&2
}

install() {
    local path file files=() arguments=()
    for path in "$root"/requirements*.txt; do
        file=${path##*/}
        if [[ " $* " == *" $file "* || -f $venv/installed/$file ]]; then
            files+=("$file")
            arguments+=(-r "$path")
        fi
    done
    if ! is_sound; then make_venv; fi
    rm -rf -- "$venv/installed" "$venv/installed.new"

    say "Installing ${files[*]} into .venv with Python $python_version (once; a minute or two) ..."
    install_with_pip "${arguments[@]}" ||
        die "pip could not install ${files[*]}: see above." \
            "It needs the package index, or a mirror that pip is set to use (PIP_INDEX_URL, pip.conf); then try again."

    mkdir -- "$venv/installed.new"
    printf '%s\n' "$python_version" >"$venv/installed.new/python"
    for file in "${files[@]}"; do cp -- "$root/$file" "$venv/installed.new/$file"; done
    mv -- "$venv/installed.new" "$venv/installed"
}
