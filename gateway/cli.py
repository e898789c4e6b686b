"""The command ``greenroom``: parses, calls, prints. What a verb does stands in ``gateway/commands/``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, get_args

from gateway.commands.effective_settings import FLAGS, explain, load_settings, parse_assignments
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings

INTRODUCTION = """\
Greenroom gives every web Actor a URL that sleeps until somebody calls it.

Five minutes: start it with your Actors, open the address that it prints, stop it with Ctrl-C.

  greenroom serve --actors deploy/examples
  http://local--hello.localhost:8010/
"""

CLOSING = """\
'greenroom VERB --help' tells all about a verb. Settings come from flags, from GREENROOM_... variables and from
a TOML file, in that order; 'greenroom config' shows the effective ones. Commands that talk to a running Greenroom find
it and its token in the data folder; elsewhere give --url, and the token in GREENROOM_TOKEN or by --token-file.
"""

RELOADING = """\
A new worker is prepared beside the one that serves: with the code that is installed now, the files of the --actors
folders as they are now, and the settings that the server was started with. It takes over once it is prepared; runs,
requests and the event sockets of Actors live on. Where that fails, the old worker goes on, and the reason is told.
"""

SEVERAL = """\
Any number of gateways and autoscalers make up one Greenroom, on one machine or many. They hear of each other by Redis
(GREENROOM_SIGNALS_URL). On one machine they may share a data folder; on many, give all of them the same records
(GREENROOM_RECORDS_URL), blobs (GREENROOM_BLOBS_URL) and GREENROOM_SECRET_KEY. --port of an autoscaler is that of the
gateways, or of what stands before them: by it runs reach the API. Stopped, an autoscaler lets go of its runs, which
live on.
"""

EXPLAINING = """\
Each line of a decision reads: when, how many runs were wanted ← how many there were, and why. Of several rules the one
that asks for most comes first. What is wound down, frozen or resumed stands below it, each with its own reason.
"""

NETWORK_RULES = """\
With --launcher docker, the engine keeps runs from each other; what keeps them from this machine's other ports and from
private networks are rules of iptables, which take root. This installs them for the server on the data folder, as often
as you like: what is there of an earlier time is replaced. The setting docker_allow names exceptions. With --launcher
swarm each node needs rules of its own: 'greenroom network-rules --nodes > rules.sh', then 'sh rules.sh' there.
"""

NETWORK_RULES_ACTIONS = {
    "check": "Tell only whether they are in force; the exit code is 0 if they are.",
    "remove": "Remove them.",
    "print": "Print them as a shell script; takes no root.",
    "nodes": "Print a shell script with those of a Docker Swarm's nodes, to be run on each of them as root.",
}


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the command line: its words, what it does, and an example that works."""

    words: str
    summary: str
    example: str


GROUPS: dict[str, tuple[Verb, ...]] = {
    "Serve": (
        Verb("serve", "run Greenroom: gateway, API and autoscaler, in one", "greenroom serve --actors ./my-actors"),
        Verb("gateway", "only the gateway and its API, of several processes", "greenroom gateway --workers 4"),
        Verb("autoscaler", "only the autoscaler; of several one leads", "greenroom autoscaler --port 8010"),
        Verb("reload", "replace the code that serves, without a gap", "greenroom reload"),
        Verb("network-rules", "close networks to runs in containers, as root", "greenroom network-rules --check"),
        Verb("config", "show every setting and where it comes from", "greenroom config --port 9000"),
    ),
    "Actors and runs": (
        Verb("push", "make an Actor of a folder, or a new build of it", "greenroom push ./my-actor"),
        Verb("names", "list, add, verify or remove an Actor's aliases and domains", "greenroom names hello add shop"),
        Verb("ps", "list the runs that live", "greenroom ps"),
        Verb("logs", "print the log of a run or build", "greenroom logs Ab3dEf6hIj9lMn2pQ --follow"),
        Verb("explain", "tell why an Actor has so many runs, or none", "greenroom explain hello --follow"),
        Verb("abort", "stop a run", "greenroom abort Ab3dEf6hIj9lMn2pQ --gracefully"),
        Verb("migrate", "have a batch run save its state and start again", "greenroom migrate Ab3dEf6hIj9lMn2pQ"),
        Verb("retry", "try an Actor again whose runs have failed too often", "greenroom retry hello"),
    ),
    "Records and blobs": (
        Verb("db migrate", "bring the records up to date", "greenroom db migrate"),
        Verb("db export", "write all records and blobs into one file", "greenroom db export greenroom.tar"),
        Verb("db import", "read such a file into an empty Greenroom", "greenroom db import greenroom.tar"),
    ),
    "Users and tokens": (
        Verb("user add", "add a user", "greenroom user add jane"),
        Verb("user list", "list the users", "greenroom user list"),
        Verb("token create", "make a token; it is printed once", "greenroom token create --user jane"),
        Verb("token list", "list a user's tokens", "greenroom token list --user jane"),
        Verb("token delete", "revoke a token", "greenroom token delete Ab3dEf6hIj9lMn2pQ"),
    ),
}

VERBS = {verb.words: verb for group in GROUPS.values() for verb in group}


class _Parser(argparse.ArgumentParser):
    """Mistakes are one clear line, like all others."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (see '{self.prog} --help').", exit_code=USAGE)


class _TopParser(_Parser):
    def format_help(self) -> str:
        lines = [INTRODUCTION]
        for title, verbs in GROUPS.items():
            lines.append(f"{title}:")
            for verb in verbs:
                lines.append(f"  {verb.words:<13} {verb.summary}")
                lines.append(f"  {'':<13}   {verb.example}")
            lines.append("")
        lines.append(CLOSING)
        return "\n".join(lines)


def _version() -> str:
    try:
        return version("greenroom")
    except PackageNotFoundError:
        return "(not installed)"


def _add_setting_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Flags for settings; what each means and its default are those of ``Settings``."""
    defaults = Settings.model_construct()
    for name in names:
        field = Settings.model_fields[name]
        default = getattr(defaults, name)
        shown = "" if default in (None, (), False) else f" Default: {default}."
        text = f"{field.description}{shown}".replace("%", "%%")
        if name == "actors":
            parser.add_argument(
                "--actors", metavar="DIR", action="append", default=argparse.SUPPRESS, help=text + " Repeatable."
            )
        elif field.annotation is bool:
            parser.add_argument(FLAGS[name], action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            choices = get_args(field.annotation) if name == "launcher" else None
            parser.add_argument(
                FLAGS[name], metavar=None if choices else name.upper(), choices=choices,
                default=argparse.SUPPRESS, help=text,
            )  # fmt: skip
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="assignments",
        help="Any other setting, e.g. --set tick_secs=1. Repeatable.",
    )  # fmt: skip


def _add_api_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", help="Address of Greenroom's API. Default: the server that runs on the data folder, if any."
    )
    # No flag for the token itself: command lines can be read by every user of the machine.
    _add_setting_flags(parser, "data", "token_file")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _TopParser(prog="greenroom")
    top.add_argument("--version", action="version", version=f"greenroom {_version()}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    groups: dict[str, Any] = {}

    def add(words: str) -> argparse.ArgumentParser:
        owner, _, name = words.rpartition(" ")
        if owner and owner not in groups:
            group = verbs.add_parser(owner, help=f"see greenroom {owner} --help")
            groups[owner] = group.add_subparsers(dest="subverb", metavar="VERB", required=True)
        verb = VERBS[words]
        summary = verb.summary[0].upper() + verb.summary[1:] + "."
        place = groups[owner] if owner else verbs
        parser: argparse.ArgumentParser = place.add_parser(
            name, description=f"{summary}\n\n  {verb.example}", help=verb.summary
        )
        parser.set_defaults(words=words)
        return parser

    _add_setting_flags(add("serve"), *(name for name in FLAGS if name != "workers"))
    gateway = add("gateway")
    gateway.epilog = SEVERAL
    _add_setting_flags(gateway, *FLAGS)
    autoscaler = add("autoscaler")
    autoscaler.epilog = SEVERAL
    _add_setting_flags(autoscaler, "port", "domain", "data", "launcher", "trust_users")
    reloading = add("reload")
    reloading.epilog = RELOADING
    _add_setting_flags(reloading, "data")
    _add_setting_flags(add("config"), *FLAGS)
    rules = add("network-rules")
    rules.epilog = NETWORK_RULES
    actions = rules.add_mutually_exclusive_group()
    for name, text in NETWORK_RULES_ACTIONS.items():
        actions.add_argument(f"--{name}", action="store_const", const=name, default="install", dest="action", help=text)
    _add_setting_flags(rules, "data", "port")

    push = add("push")
    push.add_argument("folder", metavar="DIR", type=Path, help="The Actor's folder, with .actor/actor.json in it.")
    _add_api_flags(push)
    names = add("names")
    names.add_argument("actor", metavar="ACTOR", help="The Actor's name, user/name or id.")
    names.add_argument("action", nargs="?", choices=("add", "verify", "remove"), help="None: list its names.")
    names.add_argument("name", metavar="NAME", nargs="?", help="An alias, or a custom domain such as shop.example.com.")
    _add_api_flags(names)
    _add_api_flags(add("ps"))
    logs = add("logs")
    logs.add_argument("job", metavar="RUN_OR_BUILD", help="The id of a run or build.")
    logs.add_argument("--follow", "-f", action="store_true", help="Go on as long as something is added.")
    _add_api_flags(logs)
    why = add("explain")
    why.epilog = EXPLAINING
    why.add_argument("actor", metavar="ACTOR", help="The Actor's name, user/name or id.")
    why.add_argument("--limit", type=int, default=10, metavar="N", help="So many decisions of each pool. Default: 10.")
    why.add_argument("--follow", "-f", action="store_true", help="Go on with those that are made from now on.")
    why.add_argument("--json", action="store_true", help="As JSON, with all that each decision was made of.")
    _add_api_flags(why)
    abort = add("abort")
    abort.add_argument("run", metavar="RUN", help="The id of the run.")
    abort.add_argument("--gracefully", action="store_true", help="Give it time to finish what it does.")
    _add_api_flags(abort)
    migrate = add("migrate")
    migrate.add_argument("run", metavar="RUN", help="The id of the run.")
    _add_api_flags(migrate)
    retry = add("retry")
    retry.add_argument("actor", metavar="ACTOR", help="The Actor's name, user/name or id.")
    _add_api_flags(retry)

    _add_setting_flags(add("db migrate"), "data")
    exporting = add("db export")
    exporting.add_argument("file", metavar="FILE", type=Path, help="The archive (tar), which must not be there yet.")
    exporting.add_argument(
        "--with-key", action="store_true",
        help="Put secret.key into it too: who has the file can then read all secrets.",
    )  # fmt: skip
    _add_setting_flags(exporting, "data")
    importing = add("db import")
    importing.add_argument("file", metavar="FILE", type=Path, help="What 'greenroom db export' has written.")
    importing.add_argument(
        "--other-key", action="store_true",
        help="Go on though secrets were sealed with another key; they are lost then.",
    )  # fmt: skip
    _add_setting_flags(importing, "data")

    user_add = add("user add")
    user_add.add_argument("name", metavar="NAME")
    user_add.add_argument(
        "--admin", action="store_true", help="His Actors are trusted to run as processes of this machine."
    )
    _add_setting_flags(user_add, "data")
    _add_setting_flags(add("user list"), "data")
    token_create = add("token create")
    token_create.add_argument("--user", required=True, metavar="NAME", help="Whose token it is.")
    token_create.add_argument("--name", default="command line", help="A name to know it by.")
    token_create.add_argument(
        "--scope", action="append", default=[], metavar="SCOPE", dest="scopes",
        help="What it may do; default: everything that the user may do. Repeatable.",
    )  # fmt: skip
    token_create.add_argument("--expires-days", type=float, metavar="N", help="Default: it doesn't expire.")
    _add_setting_flags(token_create, "data")
    token_list = add("token list")
    token_list.add_argument("--user", required=True, metavar="NAME")
    _add_setting_flags(token_list, "data")
    token_delete = add("token delete")
    token_delete.add_argument("token_id", metavar="ID", help="As 'greenroom token list' shows it.")
    _add_setting_flags(token_delete, "data")
    return top


def _run(arguments: argparse.Namespace) -> int:
    """Perform one verb. Modules are imported where they are needed: ``--help`` and errors come at once."""
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in FLAGS
        # 'token create --user' names whose token it is, not the first user.
        if hasattr(arguments, name) and not (name == "user" and arguments.words.startswith("token"))
    }
    given |= parse_assignments(arguments.assignments)
    settings = load_settings(given)
    match arguments.words:
        case "serve":
            from gateway.commands.serve import serve

            return serve(settings)
        case "gateway":
            from gateway.commands import gateway

            return gateway.serve(settings)
        case "autoscaler":
            from gateway.commands import autoscaler

            return autoscaler.serve(settings)
        case "reload":
            from gateway.commands.reload import reload

            return reload(settings.data)
        case "network-rules":
            from gateway.commands import network_rules

            return network_rules.run(settings, arguments.action)
        case "config":
            rows = explain(settings, given)
            widths = max(len(row.name) for row in rows), max(len(row.value) for row in rows)
            for row in rows:
                print(f"{row.name:<{widths[0]}}  {row.value:<{widths[1]}}  {row.origin}")
            return 0
        case "db migrate" | "db export" | "db import":
            from gateway.commands import db

            return db.run(settings, arguments)
        case "names":
            from gateway.commands import api_verbs, names

            with api_verbs.connect(settings, arguments.url) as api:
                return names.run(api, arguments.actor, arguments.action, arguments.name)
        case "explain":
            from gateway.commands import api_verbs
            from gateway.commands.explain import explain_actor

            with api_verbs.connect(settings, arguments.url) as api:
                return explain_actor(
                    api, arguments.actor, limit=arguments.limit, follow=arguments.follow, as_json=arguments.json
                )
        case "retry":
            from gateway.commands import api_verbs, retry

            with api_verbs.connect(settings, arguments.url) as api:
                return retry.run(api, arguments.actor)
        case "push" | "ps" | "logs" | "abort" | "migrate":
            from gateway.commands import api_verbs

            with api_verbs.connect(settings, arguments.url) as api:
                match arguments.words:
                    case "push":
                        return api_verbs.push(api, arguments.folder)
                    case "ps":
                        return api_verbs.list_runs(api)
                    case "logs":
                        return api_verbs.print_log(api, arguments.job, follow=arguments.follow)
                    case "migrate":
                        return api_verbs.migrate(api, arguments.run)
                    case _:
                        return api_verbs.abort(api, arguments.run, gracefully=arguments.gracefully)
        case _:
            from gateway.commands import people

            return people.run(settings, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command: 0, 1 where it failed, 2 where it was mistaken. Never a traceback for a mistake."""
    try:
        return _run(build_parser().parse_args(argv))
    except Refused as refused:
        for line in refused.lines:
            print(f"greenroom: {line}", file=sys.stderr)
        return refused.exit_code
    except BrokenPipeError:
        # The reader of our output (`| head`) has left: end as quietly as other tools do.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
