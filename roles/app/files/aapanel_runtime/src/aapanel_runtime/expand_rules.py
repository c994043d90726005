# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a change of the database does more than expand it, and what the pending revisions themselves have added.

Two releases use one database during a deploy, and the old one may come back. A change contracts if the old release can
fail because of it, now or when it writes again beside rows of the new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Contraction(NamedTuple):
    """Why a change is no expansion, and what to do instead: two sentences for the author of the migration."""

    reason: str
    cure: str


_LATER = "Do it in a later release, when none that needs it can come back."
_NEW_BESIDE = "Add a new one beside it, write both, and drop the old one in a later release."

DROP_TABLE = Contraction("The old release still reads and writes the table.", _LATER)
DROP_COLUMN = Contraction("The old release still reads and writes the column.", _LATER)
DROP_CONSTRAINT = Contraction("The old release may rely on the constraint.", _LATER)
DROP_INDEX = Contraction("The old release may rely on the index.", _LATER)
DROP_DEFAULT = Contraction("The old release leaves the column to its default when it inserts.", _LATER)
DROP_OTHER = Contraction("The old release may still use what is dropped.", _LATER)
RENAME_TABLE = Contraction("The old release knows the table by its old name.", _NEW_BESIDE)
RENAME_COLUMN = Contraction("The old release knows the column by its old name.", _NEW_BESIDE)
RENAME_OTHER = Contraction("The old release knows it by its old name.", _NEW_BESIDE)
SET_NOT_NULL = Contraction("The old release may write NULL into the column.", _LATER)
CHANGE_TYPE = Contraction("The old release reads and writes the column as its old type.", _NEW_BESIDE)
CHANGE_COLUMN = Contraction("The old release uses the column as it was before.", _NEW_BESIDE)
NOT_NULL_COLUMN = Contraction(
    "The old release does not fill the new column when it inserts.", "Make it nullable or give it a server_default."
)
UNIQUE = Contraction("The old release may write values that exist already.", _LATER)
CHECK = Contraction("The old release may write values that the constraint refuses.", _LATER)
FOREIGN_KEY = Contraction(
    "The old release may write or delete rows against the constraint.",
    "Let it begin at a new nullable column and say ON DELETE SET NULL or CASCADE, or do it in a later release.",
)
PRIMARY_KEY = Contraction("The old release may write rows that the primary key refuses.", _LATER)
DELETE_ROWS = Contraction("The old release may still need the rows.", _LATER)
REVOKE = Contraction("The old release may still need the right.", _LATER)

_DECLARE = "declare it safe by a comment on its line: # expand-only: why."
UNKNOWN_SQL = Contraction(
    "The SQL is put together at run time, so it cannot be judged.", f"Write it as a constant text, or {_DECLARE}"
)
UNKNOWN_STATEMENT = Contraction("It is not known whether this statement only expands.", f"If it does, {_DECLARE}")
UNKNOWN_OPERATION = Contraction("It is not known whether this operation only expands.", f"If it does, {_DECLARE}")
UNKNOWN_ARGUMENTS = Contraction(
    "Its arguments are put together at run time, so it cannot be judged.", f"Write them as constants, or {_DECLARE}"
)
ELSEWHERE = Contraction(
    "The database is handed to code that is not in this file, so it cannot be judged.",
    f"Move the code into this file, or {_DECLARE}",
)
NO_UPGRADE = Contraction(
    "The file has no upgrade() of its own that can be read.", "Write the migration as a function upgrade() in the file."
)


@dataclass
class Additions:
    """What the pending revisions have added so far. No old release knows it, so changing it again harms none.

    ``columns`` tells of each added (table, column) whether the database fills it where an insert does not name it.
    """

    tables: set[str] = field(default_factory=set)
    columns: dict[tuple[str, str], bool] = field(default_factory=dict)
    indexes: set[str] = field(default_factory=set)

    def copy(self) -> Additions:
        """Return a copy, for a branch that may not be taken."""
        return Additions(set(self.tables), dict(self.columns), set(self.indexes))

    def keep(self, other: Additions) -> None:
        """Forget what *other* does not have too: only one of two branches is taken."""
        self.tables &= other.tables
        self.indexes &= other.indexes
        self.columns = {key: value for key, value in self.columns.items() if other.columns.get(key) is value}
