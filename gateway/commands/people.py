"""``greenroom user`` and ``greenroom token``: work on the data folder itself, also while a server runs on it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from gateway.auth import ALL_SCOPES, SCOPES
from gateway.core.errors import NameNotUnique
from gateway.core.ids import ID_BYTES, TOKEN_BYTES, api_token, record_id, token_hash
from gateway.core.model import Token, User
from gateway.core.times import iso
from gateway.data_dir import make_data_dir, new_user, records_place
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings
from gateway.state.ports import Records, StateUnavailable
from gateway.state.records import open_records

# The scope of a run's own token is nothing that a person hands out.
_GRANTABLE = tuple(scope for scope in SCOPES if scope != "run")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Perform a ``user`` or ``token`` verb."""
    make_data_dir(settings.data)
    try:
        return asyncio.run(_on_records(settings, arguments))
    except StateUnavailable as error:
        raise Refused(f"the records can't be used: {error}") from error


async def _on_records(settings: Settings, arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    async with open_records(records_place(settings)) as records:
        match arguments.words:
            case "user add":
                await add_user(records, arguments.name, is_admin=arguments.admin, now=now)
            case "user list":
                for user in await records.list_users():
                    print(f"{user.id}  {user.username:<30}  {'administrator' if user.is_admin else 'user'}")
            case "token create":
                token = await create_token(
                    records,
                    arguments.user,
                    name=arguments.name,
                    scopes=arguments.scopes,
                    expires_days=arguments.expires_days,
                    now=now,
                )
                # Alone on standard output, so that it can go into a variable or a file.
                print(token)
            case "token list":
                user = await user_named(records, arguments.user)
                for found in await records.list_tokens(user.id):
                    if found.run_id is None:
                        print(_row(found, now))
            case "token delete":
                await delete_token(records, arguments.token_id)
                print(
                    f"greenroom: revoked; a running server stops believing it within {settings.token_cache_secs:g} s.",
                    file=sys.stderr,
                )
    return 0


async def add_user(records: Records, username: str, *, is_admin: bool, now: datetime) -> User:
    """Add a user. Raises Refused where the name is none or taken."""
    user = new_user(username, is_admin=is_admin, now=now, user_id=_new_id())
    try:
        await records.add_user(user)
    except NameNotUnique as error:
        raise Refused(f"a user named {username!r}, or with the same host name, exists already.") from error
    return user


async def user_named(records: Records, username: str) -> User:
    """The user of this name. Raises Refused."""
    user = await records.user_by_name(username)
    if user is None:
        raise Refused(f"there is no user {username!r}: 'greenroom user list' shows all.")
    return user


async def create_token(
    records: Records, username: str, *, name: str, scopes: list[str], expires_days: float | None, now: datetime
) -> str:
    """Make and store a token for *username*; what is returned exists nowhere else. Raises Refused."""
    for scope in scopes:
        if scope not in _GRANTABLE:
            known = ", ".join(f"{known} ({SCOPES[known]})" for known in _GRANTABLE)
            raise Refused(f"there is no scope {scope!r}. Known ones: {known}.", exit_code=USAGE)
    if expires_days is not None and not 0 < expires_days <= 36_500:
        raise Refused("--expires-days: a number of days between 0 and 36500 is expected.", exit_code=USAGE)
    user = await user_named(records, username)
    token = api_token(os.urandom(TOKEN_BYTES))
    await records.add_token(
        Token(
            id=_new_id(),
            user_id=user.id,
            name=name,
            token_hash=token_hash(token),
            scopes=frozenset(scopes or {ALL_SCOPES}),
            created_at=now,
            expires_at=None if expires_days is None else now + timedelta(days=expires_days),
        )
    )
    return token


async def delete_token(records: Records, token_id: str) -> None:
    """Revoke a token. Raises Refused where there is none of this id."""
    for user in await records.list_users():
        if any(token.id == token_id for token in await records.list_tokens(user.id)):
            await records.delete_token(token_id)
            return
    raise Refused(f"there is no token {token_id!r}: 'greenroom token list --user NAME' shows a user's.")


def _row(token: Token, now: datetime) -> str:
    if token.expires_at is None:
        until = "does not expire"
    else:
        until = f"{'expired' if token.expires_at <= now else 'expires'} {iso(token.expires_at)}"
    return f"{token.id}  {token.name:<20}  {','.join(sorted(token.scopes)):<30}  {until}"


def _new_id() -> str:
    return record_id(os.urandom(ID_BYTES))
