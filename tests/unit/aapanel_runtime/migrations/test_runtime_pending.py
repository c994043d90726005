# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``migrate`` with a real Alembic on SQLite: pending revisions are checked before they run."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from runtime_server import clean_environ

EXAMPLE = Path(__file__).parents[4] / "examples/panel"
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {name!r}, {after!r}, None, None


def upgrade():
{body}
"""
DROPPING = """op.create_table("own", sa.Column("id", sa.Integer))
op.execute("DROP TABLE own")
with op.batch_alter_table("users") as batch:
    batch.drop_column("created_at")"""
REFUSED = (
    "migrations/versions/0004.py:12: batch.drop_column(users.created_at): The previous release uses the column. "
    "Do this in a later release, after the last release that needs it.\n"
)


class Panel:
    """A copy of the example panel with a home and a SQLite database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.code, self.home = folder, folder / "code", folder / "home"
        if not folder.exists():
            shutil.copytree(EXAMPLE, self.code, ignore=shutil.ignore_patterns("__pycache__"))
            self.home.mkdir()

    def add(self, name: str, after: str, body: str) -> None:
        """Add a revision whose upgrade() starts in line 9."""
        text = REVISION.format(name=name, after=after, body=textwrap.indent(body, "    "))
        (self.code / f"migrations/versions/{name}.py").write_text(text)

    def migrate(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run the command; return its exit status, standard output, and standard error without Alembic's log."""
        done = subprocess.run(
            [sys.executable, "-m", "aapanel_runtime", "migrate", *arguments],
            env={**clean_environ(), "AAPANEL_HOME": str(self.home), **variables},
            cwd=self.code,
            capture_output=True,
            text=True,
            check=False,
        )
        stderr = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("INFO alembic")]
        return done.returncode, done.stdout, "".join(stderr)

    def columns(self, table: str) -> set[str]:
        with closing(sqlite3.connect(self.home / "data/default.db")) as database:
            return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}

    def revision(self) -> list[str]:
        with closing(sqlite3.connect(self.home / "data/default.db")) as database:
            return [row[0] for row in database.execute("SELECT version_num FROM alembic_version")]


@pytest.fixture
def panel(tmp_path) -> Panel:
    return Panel(tmp_path / "panel")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Panel:
    panel = Panel(tmp_path_factory.mktemp("migrated") / "panel")
    status, output, _ = panel.migrate()
    assert (status, panel.revision()) == (0, ["0003"]), output
    return panel


@pytest.fixture
def migrated(template, tmp_path) -> Panel:
    """A panel whose database is up to date."""
    shutil.copytree(template.folder, tmp_path / "panel")
    return Panel(tmp_path / "panel")


def test_an_empty_database_is_migrated_but_a_check_leaves_it_empty(panel):
    expected = "Pending migrations: 3; the database is empty, so no release uses it yet.\n"
    assert panel.migrate("--check") == (0, expected, "")
    assert panel.columns("alembic_version") == set()
    status, output, stderr = panel.migrate()
    assert (status, stderr) == (0, "")
    assert output.startswith(f"{expected}Migrating: ")
    assert panel.revision() == ["0003"]


def test_without_pending_revisions_alembic_does_not_run(migrated):
    assert migrated.migrate() == (0, "Nothing to migrate.\n", "")
    assert migrated.migrate("--check") == (0, "Nothing to migrate.\n", "")


def test_each_revision_of_the_example_panel_passes_the_check(panel):
    versions = panel.code / "migrations/versions"
    later = {path: path.read_text() for path in sorted(versions.glob("000[23]*.py"))}
    for path in later:
        path.unlink()
    assert panel.migrate()[0] == 0
    for path, text in later.items():
        path.write_text(text)
        assert panel.migrate("--check") == (0, "Pending migrations: 1; they only expand the schema.\n", "")
        assert panel.migrate()[0] == 0
    assert "done" in panel.columns("items")


def test_a_contraction_is_refused_and_nothing_is_migrated(migrated):
    migrated.add("0004", "0003", DROPPING)
    for arguments in ((), ("--check",)):
        status, output, stderr = migrated.migrate(*arguments)
        assert (status, output) == (3, "")
        assert stderr.startswith(REFUSED)
        assert stderr.splitlines()[1].endswith("or run them anyway with panel_migrations_contract: true.")
        assert len(stderr.splitlines()) == 2
    assert migrated.revision() == ["0003"]
    assert "created_at" in migrated.columns("users")


def test_an_allowed_contraction_is_a_warning(migrated):
    migrated.add("0004", "0003", DROPPING)
    status, output, stderr = migrated.migrate("--check", AAPANEL_MIGRATE_CONTRACT="allow")
    assert (status, output) == (0, "")
    assert stderr.startswith(f"{REFUSED}Warning: ")
    status, output, stderr = migrated.migrate(AAPANEL_MIGRATE_CONTRACT="Allow")
    assert (status, output.startswith("Migrating: ")) == (0, True)
    assert stderr.startswith(f"{REFUSED}Warning: ")
    assert migrated.revision() == ["0004"]
    assert "created_at" not in migrated.columns("users")


def test_a_revision_that_has_run_is_not_checked_again(migrated):
    migrated.add("0004", "0003", DROPPING)
    assert migrated.migrate(AAPANEL_MIGRATE_CONTRACT="allow")[0] == 0
    migrated.add("0005", "0004", 'op.add_column("users", sa.Column("mail", sa.String(200)))')
    status, output, stderr = migrated.migrate()
    assert (status, stderr) == (0, "")
    assert output.startswith("Pending migrations: 1; they only expand the schema.\n")
    assert "mail" in migrated.columns("users")


def test_pending_revisions_are_checked_together(migrated):
    migrated.add("0004", "0003", 'op.create_table("own", sa.Column("id", sa.Integer), sa.Column("x", sa.Integer))')
    migrated.add("0005", "0004", 'op.drop_column("own", "x")')
    assert migrated.migrate()[::2] == (0, "")
    assert migrated.revision() == ["0005"]


def test_a_contraction_is_accepted_for_an_empty_database_only(panel):
    panel.add("0004", "0003", 'op.execute("DELETE FROM alien WHERE 1 = 1")')
    with closing(sqlite3.connect(panel.home / "empty.db")):
        pass
    assert panel.migrate("--check", DB_NAME=str(panel.home / "empty.db"), DB_ENGINE="sqlite")[0] == 0
    with closing(sqlite3.connect(panel.home / "full.db")) as database:
        database.execute("CREATE TABLE alien (id int)")
    assert panel.migrate("--check", DB_NAME=str(panel.home / "full.db"), DB_ENGINE="sqlite")[0] == 3


def test_another_migration_command_runs_unchecked(migrated):
    migrated.add("0004", "0003", DROPPING)
    own = {"AAPANEL_MIGRATE_COMMAND": "python -c 'print(1 + 1)'"}
    line = "AAPANEL_MIGRATE_COMMAND is not auto: its migrations are not checked.\n"
    status, output, _ = migrated.migrate(**own)
    assert (status, output.startswith(f"{line}Migrating: "), output.endswith("\n2\n")) == (0, True, True)
    assert migrated.migrate("--check", **own) == (0, line, "")


def test_an_application_without_alembic_has_nothing_to_migrate(panel):
    (panel.code / "alembic.ini").unlink()
    for arguments in ((), ("--check",)):
        status, output, stderr = panel.migrate(*arguments)
        assert (status, stderr, output.count("\n")) == (0, "", 1)
        assert output.startswith("Nothing to migrate: there is no alembic.ini")


def test_a_database_of_a_newer_release_is_refused_with_the_reason(migrated):
    migrated.add("0004", "0003", 'op.create_table("own", sa.Column("id", sa.Integer))')
    assert migrated.migrate()[0] == 0
    (migrated.code / "migrations/versions/0004.py").unlink()
    for arguments in ((), ("--check",)):
        status, output, stderr = migrated.migrate(*arguments)
        assert (status, output) == (1, "")
        assert "0004" in stderr
        assert "newer release" in stderr
        assert "Traceback" not in stderr


def test_an_env_py_that_runs_no_migrations_is_refused(panel):
    (panel.code / "migrations/env.py").write_text("")
    status, output, stderr = panel.migrate()
    assert (status, output) == (1, "")
    assert stderr == "Alembic's env.py did not call context.run_migrations(), so the migrations cannot be checked.\n"


def test_a_missing_alembic_is_reported(panel, tmp_path):
    # Found before Alembic on the import path.
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow/alembic.py").write_text("raise ModuleNotFoundError(name='alembic')\n")
    path = os.pathsep.join([str(tmp_path / "shadow"), clean_environ()["PYTHONPATH"]])
    status, output, stderr = panel.migrate(PYTHONPATH=path)
    assert (status, output) == (1, "")
    assert stderr.startswith("There is an alembic.ini, but Alembic is not installed. Add alembic")


def test_a_revision_is_checked_for_each_of_its_databases(migrated):
    (migrated.code / "migrations/env.py").write_text(
        textwrap.dedent(
            """
            import sqlalchemy as sa
            from alembic import context
            from panel_store import paths

            for name in ("default", "second"):
                with sa.create_engine(f"sqlite:///{paths.DATA / name}.db").connect() as connection:
                    context.configure(connection=connection, upgrade_token=f"{name}_upgrades")
                    context.run_migrations()
            """
        )
    )
    migrated.add("0004", "0003", 'op.drop_table("jobs")')
    status, output, stderr = migrated.migrate("--check")
    assert (status, output) == (3, "")
    assert "0004.py:9: op.drop_table(jobs): " in stderr
