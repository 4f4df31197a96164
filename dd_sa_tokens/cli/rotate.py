"""`dd-sa-tokens rotate`: a new token in an old one's place, its secret handed to a command."""

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

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import RotationError
from dd_sa_tokens.models import AccessToken, CreatedToken, Secret

from .changes import ExpiresAt, ExpiresIn, describe
from .command import Run, ServiceAccount, Token, command
from .console import Messages
from .outcome import ExitCode
from .output import FormatOption, OutputOption, choose_destination, open_output
from .times import choose_expiry

_CHUNK = 65536
_END_WITHIN = 5.0  # seconds that a command has to end by itself when it is no longer wanted
_LAST_WORDS_WITHIN = 1.0  # seconds for output that is still to come when the command has ended
_MASK = b"**********"


class StoreCommandError(Exception):
    """The command did not store the secret; the text says how it ended."""


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
            help="Stores the new secret, which it is given on its standard input, without a line break. It is run "
            "without a shell; for one, give sh -c '...'. If it fails, the rotation is undone.",
            show_default=False,
        ),
    ],
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
) -> int:
    """Replace a token by a new one of the same name and scopes, and revoke the old one once the new one is stored.

    Prints the new token, without its secret. By default it lives as long as the old one did.
    """
    store = StoreCommand(_split(store_command), run.messages)
    client, ends = run.client(), choose_expiry(expires_at, expires_in)
    destination = choose_destination(format_name, output)

    async def change() -> int:
        async with client, open_output(destination, run.messages) as out:
            token = await _rotate(client, service_account_id, token_id, store, ends)
            run.messages.say(f"{describe(token)} has replaced {token_id}, which is revoked")
            await out.token(token)
        return ExitCode.OK

    return run.wait_for(change())


def _split(text: str) -> list[str]:
    """Split a command into its words as a shell would, and make sure that it can be found before anything is changed.

    Raises:
        BadParameter: It is no command.
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
    # The command's name and status say more than the name of our exception.
    raise failure.with_context(message=failure.message.replace(f"store raised {type(why).__name__}", str(why)))


@attrs.frozen
class StoreCommand:
    """A command that stores a secret, to be awaited with it.

    Attributes:
        words: The program and its arguments.
        messages: Where its output goes.
    """

    words: list[str]
    messages: Messages

    async def __call__(self, created: CreatedToken) -> None:
        """Hand the secret over, and wait for the command's end.

        Raises:
            StoreCommandError: It could not be run, or its status is not 0.
        """
        try:
            process = await asyncio.create_subprocess_exec(*self.words, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
        except OSError as error:
            failure = f"{self.words[0]} could not be run: {error.strerror}"
        else:
            status = await _see_through(process, created.key)
            if status == 0:
                return
            failure = f"{self.words[0]} " + (
                f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            )
        raise StoreCommandError(failure)


async def _see_through(process: Process, key: Secret) -> int:
    """Give a process the secret, pass its output on to stderr, and return its status."""
    assert process.stdin is not None
    assert process.stdout is not None
    passing = asyncio.ensure_future(pass_on(process.stdout, key))
    try:
        # One that has ended already: its status says whether it wanted the secret. uvloop has an error of its own.
        with suppress(OSError, RuntimeError):
            process.stdin.write(key.reveal().encode())
            await process.stdin.drain()
            process.stdin.close()
        status = await process.wait()
        await asyncio.wait([passing], timeout=_LAST_WORDS_WITHIN)
    except asyncio.CancelledError:
        await _end(process)
        raise
    finally:
        passing.cancel()
    return status


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_WITHIN)
        except TimeoutError:
            process.kill()


async def pass_on(output: StreamReader, key: Secret) -> None:
    """Pass a command's output on to stderr as it comes, with the secret masked: some commands repeat what they read."""
    secret, held, last = key.reveal().encode(), b"", b""
    while chunk := await output.read(_CHUNK):
        text = (held + chunk).replace(secret, _MASK)
        # The end may be the beginning of the secret.
        longest = min(len(text), len(secret) - 1)
        keep = next((size for size in range(longest, 0, -1) if text.endswith(secret[:size])), 0)
        held = text[len(text) - keep :]
        _write_stderr(text[: len(text) - keep])
        last = text
    _write_stderr(held if last.endswith(b"\n") or not last else held + b"\n")  # what is said next begins a line


def _write_stderr(data: bytes) -> None:
    with suppress(OSError, AttributeError):  # nobody reads it
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
