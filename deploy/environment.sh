# Read by quickstart.sh and tests/run.sh with `.`: makes or reuses the virtual environment .venv of this checkout.
# Needs the variable `root` (the checkout); gives `venv_python`. POSIX sh.

say() { printf '%s\n' "$*" >&2; }

is_debian_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

# apt_install PACKAGE...: quietly; tells what apt said only where it failed.
apt_install() {
    say "Installing $* with apt-get ..."
    log=$(mktemp)
    if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
        >"$log" 2>&1; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# Sets `python` to a Python that is new enough: $PYTHON if given, else the first one found.
find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            return 0
        fi
    done
    say "Greenroom needs Python 3.11 or newer, and none was found. Install one (Debian: apt-get install python3" \
        "python3-venv), or name it: PYTHON=/path/to/python3 sh $0"
    return 1
}

# Debian ships Python without what makes environments.
need_venv_module() {
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && return 0
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if is_debian_root && apt_install "python$version-venv" && "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        return 0
    fi
    say "This Python ($python, $version) lacks the venv module. Install it (Debian: apt-get install python$version-venv)" \
        "and try again."
    return 1
}

# Whether .venv works, belongs to this checkout and was made for the present pyproject.toml.
is_fresh() {
    grep -qxF "$1 $(cksum <"$root/pyproject.toml")" "$root/.venv/greenroom-installed" 2>/dev/null || return 1
    # From another folder, so that it is the installed package that is found.
    (cd / && "$venv_python" -c 'import os, sys, gateway
sys.exit(os.path.dirname(os.path.dirname(os.path.realpath(gateway.__file__))) != os.path.realpath(sys.argv[1]))' \
        "$root") >/dev/null 2>&1
}

# make_environment base|dev: what Greenroom needs to run, or also what its tests need.
make_environment() {
    venv_python=$root/.venv/bin/python
    if is_fresh "$1"; then
        return 0
    fi
    find_python || return 1
    need_venv_module || return 1
    if ! "$venv_python" -m pip --version >/dev/null 2>&1; then
        say "Making the environment .venv with $("$python" -V) ..."
        rm -rf "$root/.venv"
        "$python" -m venv "$root/.venv" || return 1
    fi
    rm -f "$root/.venv/greenroom-installed"
    say "Installing Greenroom and what it needs into .venv (once, about a minute) ..."
    case $1 in dev) extras='[dev]' ;; *) extras='' ;; esac
    work=$(mktemp -d)
    # The names of the packages as they come are the progress; what pip has to complain of is told where it failed.
    { "$venv_python" -m pip install --disable-pip-version-check -e "$root$extras" 2>"$work/complaints" ||
        : >"$work/failed"; } | sed -n 's/^Collecting \([A-Za-z0-9_.-]*\).*/  \1/p' >&2
    if [ -e "$work/failed" ]; then
        cat "$work/complaints" >&2
        rm -rf "$work"
        return 1
    fi
    rm -rf "$work"
    stamp=$(cksum <"$root/pyproject.toml")
    echo "base $stamp" >"$root/.venv/greenroom-installed"
    if [ "$1" = dev ]; then echo "dev $stamp" >>"$root/.venv/greenroom-installed"; fi
}
