#!/bin/sh
# All checks: sh tests/run.sh [--fast] [arguments for pytest]
# --fast leaves out what is slow, everything with containers among it. Its last line is pytest's summary. With CI=true
# nothing may be left out for want of a tool.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
. "$root/deploy/environment.sh"

fast=''
if [ "${1:-}" = --fast ]; then
    fast=1
    shift
fi

# What tests need besides Python. Node is for Actors in JavaScript.
if ! command -v npm >/dev/null 2>&1; then
    if ! is_debian_root || ! apt_install nodejs npm; then
        say "npm is not installed: the tests of Actors in JavaScript are left out."
        if [ "${CI:-}" = true ]; then exit 1; fi
    fi
fi

# What reads the files of deploy/.
for tool in docker-compose systemd-analyze; do
    if ! command -v "$tool" >/dev/null 2>&1 && is_debian_root; then
        apt_install docker-compose systemd || say "Some tests of deploy/ are left out."
        break
    fi
done

# What the suites of tests/proxy/suite are also played with.
for tool in nginx haproxy; do
    if [ -z "$fast" ] && ! command -v "$tool" >/dev/null 2>&1 && is_debian_root; then
        apt_install nginx haproxy || say "The reference runs with nginx and HAProxy are left out."
        break
    fi
done

# apt_install_stopped PACKAGE...: without the services that come with them.
apt_install_stopped() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        apt_install "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    if apt_install "$@"; then failed=0; else failed=1; fi
    rm -f "$policy"
    return "$failed"
}

# The servers that records and signals may be kept by. Tests start their own, in folders of their own.
missing=''
command -v redis-server >/dev/null 2>&1 || missing=redis-server
if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    missing="$missing postgresql"
fi
# shellcheck disable=SC2086  # several words on purpose
if [ -n "$missing" ] && { ! is_debian_root || ! apt_install_stopped $missing; }; then
    say "Not installed: $missing. The tests with them are left out."
    if [ "${CI:-}" = true ]; then exit 1; fi
fi

# A Docker engine: the one that runs already, or one of the tests' own.
if [ -z "$fast" ] && ! docker version >/dev/null 2>&1 && is_debian_root; then
    for tool in dockerd iptables debootstrap git docker-registry; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            apt_install docker.io iptables debootstrap git docker-registry
            break
        fi
    done
fi

make_environment dev
bin=$root/.venv/bin

if [ -n "$fast" ]; then
    : # nothing of that takes an engine
elif engine=$("$bin/python" tests/docker_engine.py up); then
    case $engine in *' started') trap '"$bin/python" tests/docker_engine.py down' EXIT ;; esac
    engine=${engine% started}
    export "${engine?}"
else
    say "The tests with containers are left out."
    if [ "${CI:-}" = true ]; then exit 1; fi
fi

"$bin/ruff" check --quiet .
"$bin/ruff" format --check --quiet .
"$bin/mypy" --no-error-summary
# Side by side, since most tests wait for processes; a file's tests stay together, so that they share their server.
side_by_side='-n auto --maxprocesses 4 --dist loadfile'
if [ -n "$fast" ]; then
    # What is left mostly waits, so four suit two cores.
    "$bin/pytest" -q -n 4 --dist loadfile -m 'not slow' "$@"
else
    "$bin/pytest" -q $side_by_side "$@"
fi
