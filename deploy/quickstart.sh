#!/bin/sh
# From a fresh checkout to an Actor that wakes up: sh deploy/quickstart.sh [--check] [--port N]
# Needs Python 3.11 or newer and nothing else. --check takes a free port, checks the answers and stops.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

for argument in "$@"; do
    case $argument in
        -h | --help)
            sed -n '2,3s/^# //p' "$root/deploy/quickstart.sh"
            exit 0
            ;;
    esac
done

. "$root/deploy/environment.sh"
make_environment base
exec "$venv_python" "$root/deploy/first_call.py" "$@"
