"""API users of a cloud scene: number in the mark, salt of the commitment, hash of the token. SQLite, mode 0600.

A number is never given twice, so a payload found years later still means one user.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import LargeBinary, String, create_engine, func, select
from sqlalchemy.exc import IntegrityError as Duplicate
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from zhiyi.errors import BadInput, ConfigError, NotFound
from zhiyi.usage_log import user_commitment
from zhiyi_oracle.secret_files import private_folder

MAX_NUMBER: Final = (1 << 16) - 1  # bits of the number in a payload
MAX_NAME: Final = 200
_SALT_BYTES: Final = 32
_BOOK: Final = "users.sqlite"


class Base(DeclarativeBase):
    pass


class UserRow(Base):
    __tablename__ = "users"
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME), unique=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(_SALT_BYTES))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    active: Mapped[bool] = mapped_column(default=True)


@dataclass(frozen=True)
class ApiUser:
    """A user. `salt` and `name` open the commitment in the user's leaves: show them only to whom it concerns."""

    number: int
    name: str
    salt: bytes
    active: bool

    @property
    def commitment(self) -> bytes:
        """What the user's leaves hold."""
        return user_commitment(self.name, self.salt)


class ApiUsers:
    """The book of users of one provider."""

    def __init__(self, folder: Path, *, new: bool = True) -> None:
        """new: whether an empty book is begun where there is none.

        Raises ConfigError when others may enter the folder, or where there is no book and none is begun.
        """
        if not new and not (folder / _BOOK).is_file():
            raise ConfigError(f"{folder} is no provider's folder: there is no {_BOOK}")
        path = private_folder(folder) / _BOOK
        path.touch(mode=0o600)
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        Base.metadata.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def add(self, name: str) -> tuple[ApiUser, str]:
        """A new user and its token, which is shown this once.

        Raises:
            BadInput: the name is empty, too long or taken, or all numbers are given out.
        """
        if not 0 < len(name) <= MAX_NAME:
            raise BadInput(f"a user name has 1 to {MAX_NAME} characters, given {len(name)}")
        token = secrets.token_urlsafe(32)
        try:
            with self._session() as session:
                number = (session.scalar(select(func.max(UserRow.number))) or 0) + 1
                if number > MAX_NUMBER:
                    raise BadInput(
                        f"all {MAX_NUMBER} user numbers are taken; serve others under another model key"
                    )
                row = UserRow(
                    number=number,
                    name=name,
                    salt=secrets.token_bytes(_SALT_BYTES),
                    token_hash=_token_hash(token),
                )
                session.add(row)
        except Duplicate as exc:
            raise BadInput(f"user {name!r} exists already; choose another name") from exc
        return _user(row), token

    def deactivate(self, name: str) -> None:
        """The token no longer counts; number and salt stay for traces. Raises NotFound."""
        with self._session() as session:
            row = session.scalar(select(UserRow).where(UserRow.name == name))
            if row is None:
                raise NotFound(f"no API user is called {name!r}")
            row.active = False

    def by_token(self, token: str) -> ApiUser | None:
        """The active user of a token."""
        wanted = _token_hash(token)
        with self._session() as session:
            row = session.scalar(select(UserRow).where(UserRow.token_hash == wanted))
        if row is None or not row.active or not hmac.compare_digest(row.token_hash, wanted):
            return None
        return _user(row)

    def by_name(self, name: str) -> ApiUser:
        """Raises NotFound."""
        with self._session() as session:
            row = session.scalar(select(UserRow).where(UserRow.name == name))
        if row is None:
            raise NotFound(f"no API user is called {name!r}; add it with `zhiyi provider add-user`")
        return _user(row)

    def by_number(self, number: int) -> ApiUser:
        """Raises NotFound."""
        with self._session() as session:
            row = session.get(UserRow, number)
        if row is None:
            raise NotFound(f"no API user has the number {number}")
        return _user(row)

    def numbers(self) -> frozenset[int]:
        """All numbers ever given out."""
        with self._session() as session:
            return frozenset(session.scalars(select(UserRow.number)))


def _token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _user(row: UserRow) -> ApiUser:
    return ApiUser(row.number, row.name, row.salt, row.active)
