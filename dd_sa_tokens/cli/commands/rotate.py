"""`dd-sa-tokens rotate`: replace a token by a new one, whose secret goes to a command."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, STDOUT, Process
from contextlib import suppress
from datetime import datetime
from typing import Annotated

import attrs
import typer

from dd_sa_tokens.cli.command import Run, ServiceAccount, Token, command, describe
from dd_sa_tokens.cli.exit_codes import ExitCode
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.cli.io.masking import SecretMask
from dd_sa_tokens.cli.output import AppendOption, FormatOption, OutputOption, choose_destination, open_results
from dd_sa_tokens.cli.times import ExpiresAt, ExpiresIn, choose_expiry
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import RotationError
from dd_sa_tokens.models import AccessToken, CreatedToken, Secret

END_WITHIN = 5.0
"""Seconds that an interrupted store command gets before it is killed."""

_CHUNK = 65536  # bytes
_LAST_OUTPUT_WITHIN = 1.0  # seconds for output that is still in the pipe when the store command has ended


class StoreCommandError(Exception):
    """The store command did not store the secret. The text says how it ended."""


@command
def rotate(
    run: Run,
    service_account_id: ServiceAccount,
    token_id: Token,
    *,
    store_command: Annotated[
        str,
        typer.Option(
            metavar="CMD",
            help="Stores the new secret, its standard input. If it fails, the rotation is rolled back.",
            show_default=False,
        ),
    ],
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
) -> int:
    """Replace a token by a new one, and revoke the old one.

    The new one has the same name, scopes and lifetime.
    """
    store = StoreCommand(_split(store_command), run.messages)
    client, ends = run.client(), choose_expiry(expires_at, expires_in)
    destination = choose_destination(format_name, output, append=append)

    async def change() -> int:
        async with client, open_results(destination, run.messages) as results:
            token = await _rotate(client, service_account_id, token_id, store, ends)
            run.messages.say(f"{describe(token)} has replaced {token_id}, which is revoked")
            await results.write(token_record(token))
        return ExitCode.OK

    return run_async(change())


def _split(text: str) -> list[str]:
    """Split a command into words like a shell, and check that its program exists, before anything is changed.

    Raises:
        BadParameter: It is not a command.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise typer.BadParameter(f"it cannot be split into words: {error}", param_hint="--store-command") from None
    if not words or shutil.which(words[0]) is None:
        raise typer.BadParameter("there is no such program", param_hint="--store-command")
    return words


async def _rotate(
    client: TokensClient, service_account_id: str, token_id: str, store: StoreCommand, ends: datetime | None
) -> AccessToken:
    try:
        return await client.rotate_token(service_account_id, token_id, store=store, expires_at=ends)
    except asyncio.CancelledError as error:
        for note in getattr(error, "__notes__", ()):
            store.messages.fail(f"interrupted; {note}")
        raise
    except RotationError as error:
        failure = error
    why = failure.__cause__
    if not isinstance(why, StoreCommandError):
        raise failure
    # The program and its status say more than the name of a Python exception.
    raise failure.with_context(message=failure.message.replace(f"store raised {type(why).__name__}", str(why)))


@attrs.frozen
class StoreCommand:
    """A command that stores a secret. It is called with the new token, and awaited.

    Attributes:
        words: The program and its arguments.
        messages: Prints what an interrupted rotation has left.
    """

    words: list[str]
    messages: Messages

    async def __call__(self, created: CreatedToken) -> None:
        """Give the command the secret, and wait until it ends.

        Raises:
            StoreCommandError: It could not be run, or its status is not 0.
        """
        try:
            process = await asyncio.create_subprocess_exec(*self.words, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
        except OSError as error:
            failure = f"{self.words[0]} could not be run: {error.strerror}"
        else:
            status = await _complete(process, created.key)
            if status == 0:
                return
            failure = f"{self.words[0]} " + (
                f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            )
        raise StoreCommandError(failure)


async def _complete(process: Process, key: Secret) -> int:
    """Give a process the secret, copy its output to standard error, and return its status."""
    assert process.stdin is not None
    assert process.stdout is not None
    copying = asyncio.ensure_future(copy_masked(process.stdout, key))
    try:
        # The process may have ended already; its status says whether it needed the secret. uvloop raises RuntimeError.
        with suppress(OSError, RuntimeError):
            process.stdin.write(key.reveal().encode())
            await process.stdin.drain()
            process.stdin.close()
        status = await process.wait()
        await asyncio.wait([copying], timeout=_LAST_OUTPUT_WITHIN)
    except asyncio.CancelledError:
        await terminate(process)
        raise
    finally:
        copying.cancel()
    return status


async def terminate(process: Process) -> None:
    """End a process, and kill it if it does not end by itself."""
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_WITHIN)
        except TimeoutError:
            process.kill()


async def copy_masked(output: StreamReader, key: Secret, chunk_size: int = _CHUNK) -> None:
    """Copy a command's output to standard error as it comes, with the secret masked, also if it is encoded."""
    mask, ends_line = SecretMask(key), True
    while chunk := await output.read(chunk_size):
        _write_stderr(mask.feed(chunk))
        ends_line = chunk.endswith(b"\n")
    _write_stderr(mask.end() if ends_line else mask.end() + b"\n")  # the next message begins a line


def _write_stderr(data: bytes) -> None:
    with suppress(OSError, AttributeError):  # it is closed
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
