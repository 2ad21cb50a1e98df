"""The command line of scripts/queue."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import ssl
import sys
from argparse import Namespace
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import client

from app.queue.broker import Access, access
from app.queue.credentials import CredentialsError, read_urls, readable_by_others
from app.queue.names import CLASSES, is_tenant
from queue_tool import dead, results, setup, status, submit
from queue_tool.broker import Broker, QueueError, connected
from queue_tool.key import make_key
from queue_tool.output import Output

PREFIX = "NODE_WHISPER_"
DEFAULT_TENANT = "default"

COMMANDS = {
    "init": "make the streams, consumers and buckets; run it again for a new tenant or model",
    "submit": "submit audio files and print their ids or, with --wait, their texts",
    "result": "print the result of a job",
    "status": "show the waiting, the held and the dead jobs, and the age of the oldest",
    "dead": "list, retry or drop the jobs that killed their node five times",
    "key": "make the key pair of a user: the seed goes into FILE, the public key to stdout",
}

EPILOG = """commands:
{commands}

'scripts/queue COMMAND -h' describes a command. --queue, --queue-credentials and --queue-ca may
stand anywhere. They and --tenant can also be set as {prefix}QUEUE,
{prefix}QUEUE_CREDENTIALS, {prefix}QUEUE_CA and {prefix}QUEUE_TENANT. Exit status:
0 if all was done, 1 if anything failed, 2 for invalid arguments."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"scripts/queue: {message} (see -h)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if arguments is None else list(arguments)
    try:
        for stream in (sys.stdout, sys.stderr):
            if not stream.isatty():
                stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        options = parse(argv, os.environ)
        if options.command == "key":
            return make_key(options.file)
        return asyncio.run(_run(options))
    except QueueError as error:
        print(f"scripts/queue: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("scripts/queue: interrupted; accepted jobs go on", file=sys.stderr)
        return 130


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Namespace:
    """Read the command line. Exits with status 2 for an invalid one, and prints warnings."""
    broker_options = _Parser(add_help=False, allow_abbrev=False)
    _add_broker_options(broker_options)
    given, rest = broker_options.parse_known_args(argv)
    command, rest = _command(rest)
    parser = _parser_of(command)
    options = parser.parse_intermixed_args(rest)
    options.command = command
    _check(parser, options, environment)
    if command != "key":
        options.access = _access(parser, given, options, environment)
    return options


def _command(rest: list[str]) -> tuple[str, list[str]]:
    overview = _Parser(
        prog="scripts/queue",
        usage="scripts/queue COMMAND ... [--queue URL] [--queue-credentials FILE]"
        " [--queue-ca FILE]",
        description="Set up a queue on NATS JetStream, submit audio to it, and fetch results.",
        epilog=EPILOG.format(
            commands="\n".join(f"  {name:<8} {text}" for name, text in COMMANDS.items()),
            prefix=PREFIX,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_broker_options(overview)
    if not rest or rest[0] in ("-h", "--help"):
        overview.parse_args(rest or ["-h"])
    if rest[0] not in COMMANDS:
        overview.error(f"{rest[0]!r} is not one of {', '.join(COMMANDS)}")
    return rest[0], rest[1:]


def _add_broker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue",
        metavar="URL",
        help="address of the broker, such as nats://broker:4222 or tls://broker; several with"
        " commas (default: nats://127.0.0.1:4222)",
    )
    parser.add_argument(
        "--queue-credentials",
        metavar="FILE",
        help="file with the identity: the seed of an nkey, a .creds file, or user:password",
    )
    parser.add_argument(
        "--queue-ca", metavar="FILE", help="PEM file of the authority of the broker's certificate"
    )


def _parser_of(command: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"scripts/queue {command}",
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
        allow_abbrev=False,
    )
    add = parser.add_argument
    if command == "init":
        add(
            "--tenant",
            action="append",
            type=_tenant,
            help=f"make the buckets of a tenant; repeatable (default: {DEFAULT_TENANT})",
        )
        add(
            "--model",
            action="append",
            default=[],
            help="make consumers for a model that is not one of the official ones; repeatable",
        )
        add(
            "--site",
            action="append",
            default=[],
            type=_domain,
            metavar="DOMAIN",
            help="fetch the jobs of the site's broker with this JetStream domain; repeatable",
        )
        add(
            "--hub",
            type=_domain,
            metavar="DOMAIN",
            help="set up the broker of a site: the hub with this JetStream domain fetches its jobs,"
            " and the site fetches the results",
        )
        add(
            "--update",
            action="store_true",
            help="change settings that differ instead of listing them",
        )
    elif command == "submit":
        add("files", nargs="+", metavar="FILE", help="audio file; - reads stdin")
        add("--tenant", type=_tenant, help=f"tenant of the job (default: {DEFAULT_TENANT})")
        add("--model", help="only nodes with this model take the job (default: any model)")
        add(
            "--class",
            dest="job_class",
            choices=CLASSES,
            help="class of the job; short jobs do not wait for long ones (default: by size)",
        )
        add("--id", help="id of the job, for one FILE (default: a random one)")
        add("--wait", action="store_true", help="wait for the result and print it, not the id")
        client.add_output_options(parser)
        client.add_request_options(parser)
    elif command == "result":
        add("id", metavar="ID")
        add("--tenant", type=_tenant, help=f"tenant of the job (default: {DEFAULT_TENANT})")
        add("--wait", action="store_true", help="wait until there is a result")
        client.add_output_options(parser)
    elif command == "status":
        add("--json", action="store_true", help="print one JSON object")
    elif command == "dead":
        add("action", choices=("list", "retry", "drop"))
        add("ids", nargs="*", metavar="ID", help="the jobs to retry or drop")
        add("--tenant", type=_tenant, help="the tenant, if several have a job of that id")
        add("--json", action="store_true", help="list: print one JSON object a line")
    else:
        add("file", type=Path, metavar="FILE", help="file for the seed; it must not exist")
    return parser


def _tenant(text: str) -> str:
    if not is_tenant(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 32 of A-Z a-z 0-9 _ -")
    return text


def _domain(text: str) -> str:
    if not text or set(text) & set(" .*>"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JetStream domain")
    return text


def _check(
    parser: argparse.ArgumentParser, options: Namespace, environment: Mapping[str, str]
) -> None:
    command = options.command
    if command in ("init", "submit", "result") and not options.tenant:
        named = environment.get(f"{PREFIX}QUEUE_TENANT") or DEFAULT_TENANT
        if not is_tenant(named):
            parser.error(f"{PREFIX}QUEUE_TENANT: {named!r} is not 1 to 32 of A-Z a-z 0-9 _ -")
        options.tenant = [named] if command == "init" else named
    if command == "init" and options.hub and options.site:
        parser.error("--hub and --site are for different brokers: a site's, and the hub")
    if command == "submit":
        if options.files.count("-") > 1:
            parser.error("- (stdin) can be read only once")
        if len(options.files) > 1 and (options.id is not None or options.srt or options.vtt):
            parser.error("--id, --srt and --vtt take one FILE: run the command once for each file")
        if not options.wait and (options.srt or options.vtt):
            parser.error("--srt and --vtt need the text: add --wait")
        client.check_raw_options(parser, options)
    if command == "dead":
        if options.action == "list" and options.ids:
            parser.error("list takes no ID")
        if options.action != "list" and not options.ids:
            parser.error(f"{options.action} needs an ID: dead list shows them")


def _access(
    parser: argparse.ArgumentParser,
    given: Namespace,
    options: Namespace,
    environment: Mapping[str, str],
) -> Access:
    def value(name: str) -> str | None:
        found: str | None = getattr(given, name) or environment.get(PREFIX + name.upper())
        return found or None

    credentials, ca = value("queue_credentials"), value("queue_ca")
    # Each user has its own reply subjects, and its rights may be restricted to them.
    tenant = options.tenant if options.command in ("submit", "result") else "admin"
    try:
        found = access(
            read_urls(value("queue") or "nats://127.0.0.1:4222"),
            None if credentials is None else Path(credentials),
            None if ca is None else Path(ca),
            owner=tenant,
            name=f"scripts/queue {options.command}",
        )
    except CredentialsError as error:
        parser.error(str(error))
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        parser.error(f"cannot use the authority {ca}: {reason}")
    if credentials is not None and readable_by_others(Path(credentials)):
        print(
            f"scripts/queue: warning: other users can read {credentials}: run chmod 600",
            file=sys.stderr,
        )
    return found


async def _run(options: Namespace) -> int:
    async with connected(options.access) as broker:
        return await _dispatch(broker, options)


async def _dispatch(broker: Broker, options: Namespace) -> int:
    if options.command == "init":
        plan = setup.Plan(options.tenant, options.model, options.site, options.hub, options.update)
        return await setup.init(broker, plan)
    if options.command == "submit":
        return await submit.submit(broker, options, Output(options))
    if options.command == "result":
        output = Output(options)
        found = await results.fetch(broker, options.tenant, options.id, options.wait)
        output.show(options.id, options.id, found)
        return 1 if output.failed else 0
    if options.command == "status":
        return await status.status(broker, options.json)
    if options.action == "list":
        return await dead.list_dead(broker, options.json)
    act = dead.retry if options.action == "retry" else dead.drop
    failures = [await _failure(act(broker, one, options.tenant), one) for one in options.ids]
    return 1 if any(failures) else 0


async def _failure(action: Awaitable[int], request_id: str) -> bool:
    """Run one action of several and return whether it failed; the others go on."""
    try:
        await action
    except QueueError as error:
        print(f"{request_id}: {error}", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
