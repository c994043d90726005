# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reasons why a change contracts the schema, and what the pending revisions have added to it.

During a deploy two releases use the database, and a rollback returns to the previous one. A change contracts the schema
if the previous release may fail because of it, at once or when it writes beside rows of the new release.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Contraction(NamedTuple):
    """Why a change contracts the schema, and what to do instead: two sentences for the author of the migration."""

    reason: str
    cure: str


_LATER = "Do this in a later release, after the last release that needs it."
_NEW_BESIDE = "Add a new one, write to both, and drop the old one in a later release."

DROP_TABLE = Contraction("The previous release uses the table.", _LATER)
DROP_COLUMN = Contraction("The previous release uses the column.", _LATER)
DROP_CONSTRAINT = Contraction("The previous release may rely on the constraint.", _LATER)
DROP_INDEX = Contraction("The previous release may rely on the index.", _LATER)
DROP_DEFAULT = Contraction("The previous release may insert rows without a value for the column.", _LATER)
DROP_OTHER = Contraction("The previous release may use the dropped object.", _LATER)
RENAME_TABLE = Contraction("The previous release uses the old name of the table.", _NEW_BESIDE)
RENAME_COLUMN = Contraction("The previous release uses the old name of the column.", _NEW_BESIDE)
RENAME_OTHER = Contraction("The previous release may use the old name.", _NEW_BESIDE)
SET_NOT_NULL = Contraction("The previous release may write NULL into the column.", _LATER)
CHANGE_TYPE = Contraction("The previous release uses the column with its old type.", _NEW_BESIDE)
CHANGE_COLUMN = Contraction("The previous release uses the column with its old definition.", _NEW_BESIDE)
NOT_NULL_COLUMN = Contraction(
    "The previous release inserts rows without a value for the new column.",
    "Make the column nullable, or give it a server_default.",
)
UNIQUE = Contraction("The previous release may write values that already exist.", _LATER)
CHECK = Contraction("The previous release may write values that violate the constraint.", _LATER)
FOREIGN_KEY = Contraction(
    "The previous release may write or delete rows that violate the constraint.",
    "Use a new nullable column with ON DELETE SET NULL or CASCADE, or do this in a later release.",
)
PRIMARY_KEY = Contraction("The previous release may write rows that violate the primary key.", _LATER)
DELETE_ROWS = Contraction("The previous release may need the rows.", _LATER)
REVOKE = Contraction("The previous release may need the privilege.", _LATER)

_DECLARE = "declare it safe with a comment on its line: # expand-only: <reason>."
UNKNOWN_SQL = Contraction(
    "The SQL is built at run time, so it cannot be checked.", f"Write it as a constant string, or {_DECLARE}"
)
UNKNOWN_STATEMENT = Contraction(
    "The effect of this statement is unknown.", f"If it only expands the schema, {_DECLARE}"
)
UNKNOWN_OPERATION = Contraction(
    "The effect of this operation is unknown.", f"If it only expands the schema, {_DECLARE}"
)
UNKNOWN_ARGUMENTS = Contraction(
    "The arguments are built at run time, so they cannot be checked.", f"Write them as constants, or {_DECLARE}"
)
EXTERNAL_CODE = Contraction(
    "The database is passed to code outside of this file, so it cannot be checked.",
    f"Move the code into this file, or {_DECLARE}",
)
NO_UPGRADE = Contraction(
    "The file does not define a function upgrade().", "Write the migration as a function upgrade() in the file."
)


@dataclass
class Additions:
    """Additions of the pending revisions so far. They may change it again, because no release uses it yet.

    :param columns: for each added (table, column), whether the server fills it if an insert does not name it.
    """

    tables: set[str] = field(default_factory=set)
    columns: dict[tuple[str, str], bool] = field(default_factory=dict)
    indexes: set[str] = field(default_factory=set)

    def copy(self) -> Additions:
        """Return a copy."""
        return Additions(set(self.tables), dict(self.columns), set(self.indexes))

    def intersect(self, other: Additions) -> None:
        """Keep only what *other* has too: the common additions of two branches."""
        self.tables &= other.tables
        self.indexes &= other.indexes
        self.columns = {key: value for key, value in self.columns.items() if other.columns.get(key) is value}
