# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which operations of a revision contract the schema, and which only expand it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from aapanel_runtime.migrations import rules
from aapanel_runtime.migrations.revision import Finding, check_revision, check_revisions
from aapanel_runtime.migrations.rules import Additions

EXAMPLE = Path(__file__).parents[4] / "examples/panel/migrations/versions"
HEAD = "import sqlalchemy as sa\nfrom alembic import op\n"
FIRST_LINE = 4
OP = "from alembic import op"


def revision(body: str) -> str:
    return f"{HEAD}def upgrade():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def found(body: str) -> list[Finding]:
    return check_revision(revision(body))


def reasons(body: str) -> list[str]:
    return [finding.reason for finding in found(body)]


EXPANDS = {
    "a table": 'op.create_table("t", sa.Column("id", sa.Integer, nullable=False), sa.UniqueConstraint("id"))',
    "a nullable column": 'op.add_column("t", sa.Column("c", sa.Integer))',
    "an explicitly nullable column": 'op.add_column("t", sa.Column("c", sa.Integer, nullable=True))',
    "a column with a default": 'op.add_column("t", sa.Column("c", sa.Integer, nullable=False, server_default="0"))',
    "a computed column": 'op.add_column("t", sa.Column("c", sa.Integer, sa.Computed("a + 1"), nullable=False))',
    "a new foreign key with ON DELETE SET NULL": """
        op.add_column("t", sa.Column("c", sa.Integer, sa.ForeignKey("u.id", ondelete="SET NULL")))""",
    "a unique new column": 'op.add_column("t", sa.Column("c", sa.Integer, unique=True))',
    "an index": 'op.create_index(op.f("ix"), "t", ["c"], unique=False)',
    "DROP NOT NULL": 'op.alter_column("t", "c", existing_type=sa.Integer(), nullable=True)',
    "a changed default": 'op.alter_column("t", "c", server_default=sa.text("1"))',
    "a comment": 'op.alter_column("t", "c", comment="x", existing_nullable=False)',
    "rows": 'op.bulk_insert(sa.table("t", sa.column("c")), [{"c": 1}])',
    "a built statement": 't = sa.table("t", sa.column("c"))\nop.execute(t.update().where(t.c.c == 1).values(c=2))',
    "another built statement": 'op.get_bind().execute(sa.select(sa.table("t").c.x))',
    "a table of metadata": "sa.MetaData().create_all(op.get_bind())",
    "an inspection": 'if not sa.inspect(op.get_bind()).has_table("t"):\n    op.create_table("t")',
    "changes of a new table": """
        op.create_table("t", sa.Column("a", sa.Integer))
        op.add_column("t", sa.Column("b", sa.Integer, nullable=False))
        op.create_unique_constraint("u", "t", ["a"])
        op.create_foreign_key("f", "t", "other", ["a"], ["id"])
        op.alter_column("t", "a", nullable=False, type_=sa.BigInteger(), new_column_name="c")
        op.drop_column("t", "b")
        op.execute("ALTER TABLE t DROP COLUMN c")
        op.execute("DELETE FROM t")
        op.rename_table("t", "t2")
        op.drop_table("t2")""",
    "changes of a new column and index": """
        op.add_column("t", sa.Column("a", sa.Integer))
        op.alter_column("t", "a", type_=sa.BigInteger())
        op.create_unique_constraint("u", "t", ["a"])
        op.create_foreign_key("f", "t", "other", ["a"], ["id"], ondelete="CASCADE")
        op.create_index("ix", "t", ["a"], unique=True)
        op.drop_index("ix", "t")
        op.drop_column("t", "a")""",
    "NOT NULL on a new column with a default": """
        op.add_column("t", sa.Column("a", sa.Integer, server_default="1"))
        op.alter_column("t", "a", nullable=False)""",
}


@pytest.mark.parametrize("body", EXPANDS.values(), ids=EXPANDS.keys())
def test_an_expansion_is_accepted(body):
    assert found(body) == []


CONTRACTS = [
    ('op.drop_table("t")', "op.drop_table(t)", rules.DROP_TABLE),
    ('op.drop_table("t", schema="s")', "op.drop_table(s.t)", rules.DROP_TABLE),
    ('op.rename_table("t", "u")', "op.rename_table(t)", rules.RENAME_TABLE),
    ('op.drop_column("t", "c")', "op.drop_column(t.c)", rules.DROP_COLUMN),
    ('op.drop_column(table_name="t", column_name="c")', "op.drop_column(t.c)", rules.DROP_COLUMN),
    ('op.alter_column("t", "c", new_column_name="d")', "op.alter_column(t.c)", rules.RENAME_COLUMN),
    ('op.alter_column("t", "c", nullable=False)', "op.alter_column(t.c)", rules.SET_NOT_NULL),
    ('op.alter_column("t", "c", nullable=strict())', "op.alter_column(t.c)", rules.UNKNOWN_ARGUMENTS),
    ('op.alter_column("t", "c", **more)', "op.alter_column(t.c)", rules.UNKNOWN_ARGUMENTS),
    ('op.alter_column("t", "c", type_=sa.Text())', "op.alter_column(t.c)", rules.CHANGE_TYPE),
    ('op.alter_column("t", "c", server_default=None)', "op.alter_column(t.c)", rules.DROP_DEFAULT),
    ('op.add_column("t", sa.Column("c", sa.Text, nullable=False))', "op.add_column(t.c)", rules.NOT_NULL_COLUMN),
    (
        'op.add_column("t", sa.Column("c", sa.Text, nullable=False, default=""))',
        "op.add_column(t.c)",
        rules.NOT_NULL_COLUMN,
    ),
    (
        'op.add_column("t", sa.Column("c", sa.Text, nullable=False, server_default=None))',
        "op.add_column(t.c)",
        rules.NOT_NULL_COLUMN,
    ),
    ('op.add_column("t", sa.Column("c", sa.Text, server_default="", unique=True))', "op.add_column(t.c)", rules.UNIQUE),
    ('op.add_column("t", sa.Column("c", sa.Text, sa.ForeignKey("u.id")))', "op.add_column(t.c)", rules.FOREIGN_KEY),
    ('op.add_column("t", sa.Column("c", sa.Text, sa.CheckConstraint("x")))', "op.add_column(t.c)", rules.CHECK),
    ('op.add_column("t", make_column())', "op.add_column(t)", rules.UNKNOWN_ARGUMENTS),
    ('op.create_unique_constraint("u", "t", ["c"])', "op.create_unique_constraint(t)", rules.UNIQUE),
    ('op.create_check_constraint("k", "t", "c > 0")', "op.create_check_constraint(t)", rules.CHECK),
    ('op.create_foreign_key("f", "t", "u", ["c"], ["id"])', "op.create_foreign_key(t)", rules.FOREIGN_KEY),
    ('op.create_primary_key("p", "t", ["c"])', "op.create_primary_key(t)", rules.PRIMARY_KEY),
    ('op.drop_constraint("k", "t", type_="check")', "op.drop_constraint(t)", rules.DROP_CONSTRAINT),
    ('op.create_index("ix", "t", ["c"], unique=True)', "op.create_index(t.ix)", rules.UNIQUE),
    ('op.drop_index("ix", table_name="t")', "op.drop_index(ix)", rules.DROP_INDEX),
    ('op.drop_view("v")', "op.drop_view()", rules.DROP_OTHER),
    ('op.replace_entity("v")', "op.replace_entity()", rules.UNKNOWN_OPERATION),
    ("helper(op)", "helper()", rules.EXTERNAL_CODE),
    ('map(op.drop_table, ["t"])', "map()", rules.EXTERNAL_CODE),
    ("tidy_up(op.get_bind())", "tidy_up()", rules.EXTERNAL_CODE),
    ("sa.MetaData().drop_all(op.get_bind())", "sa.MetaData().drop_all()", rules.DROP_TABLE),
    ('sa.Enum(name="e").drop(op.get_bind())', "sa.Enum(name='e').drop()", rules.DROP_OTHER),
    (
        'op.batch_alter_table("t", table_args=[sa.UniqueConstraint("c")])',
        "op.batch_alter_table()",
        rules.UNKNOWN_ARGUMENTS,
    ),
    ('op.execute(sa.table("t").delete())', "op.execute(delete t)", rules.DELETE_ROWS),
    ('op.execute(sa.delete(sa.table("t")).where(x))', "op.execute(delete t)", rules.DELETE_ROWS),
    ("op.execute(text)", "op.execute()", rules.UNKNOWN_SQL),
    ('op.execute("DROP TABLE " + name)', "op.execute()", rules.UNKNOWN_SQL),
    ('op.execute(f"DROP TABLE {name}")', "op.execute()", rules.UNKNOWN_SQL),
    ('op.execute("DROP TABLE t")', "op.execute(DROP TABLE t)", rules.DROP_TABLE),
    ('op.execute(sa.text("DROP TABLE t"))', "op.execute(DROP TABLE t)", rules.DROP_TABLE),
    ('op.get_bind().execute(sa.text("DROP TABLE t"))', "op.get_bind().execute(DROP TABLE t)", rules.DROP_TABLE),
    ('c = op.get_bind()\nc.exec_driver_sql("DROP TABLE t")', "c.exec_driver_sql(DROP TABLE t)", rules.DROP_TABLE),
    (
        's = sa.orm.Session(bind=op.get_bind())\ns.query(User).filter(x).delete()',
        "s.query(User).filter(x).delete()",
        rules.DELETE_ROWS,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "operation", "contraction"), CONTRACTS)
def test_a_contraction_is_reported_with_its_reason(body, operation, contraction):
    assert found(body) == [Finding(FIRST_LINE + body.count("\n"), operation, *contraction)]


@pytest.mark.parametrize(
    ("line", "operation", "contraction"),
    [
        ('b.drop_column("c")', "b.drop_column(t.c)", rules.DROP_COLUMN),
        ('b.alter_column("c", nullable=False)', "b.alter_column(t.c)", rules.SET_NOT_NULL),
        ('b.add_column(sa.Column("c", sa.Text, nullable=False))', "b.add_column(t.c)", rules.NOT_NULL_COLUMN),
        ('b.create_unique_constraint("u", ["c"])', "b.create_unique_constraint(t)", rules.UNIQUE),
        ('b.create_foreign_key("f", "u", ["c"], ["id"])', "b.create_foreign_key(t)", rules.FOREIGN_KEY),
        ('b.create_index(columns=["c"], index_name="ix", unique=True)', "b.create_index(t.ix)", rules.UNIQUE),
        ('b.drop_constraint("k")', "b.drop_constraint(t)", rules.DROP_CONSTRAINT),
    ],
)
def test_the_operations_of_a_batch_are_checked(line, operation, contraction):
    batch = f'with op.batch_alter_table("t", schema=None) as b:\n    {line}'
    assert found(batch) == [Finding(FIRST_LINE + 1, operation, *contraction)]
    assert found(f'op.create_table("t")\n{batch}') == []


def test_a_batch_may_constrain_the_columns_that_it_adds():
    assert reasons(
        """
        with op.batch_alter_table("t") as b:
            b.add_column(sa.Column("c", sa.Integer, nullable=True))
            b.create_index("ix", ["c"])
            b.create_foreign_key("f", "u", ["c"], ["id"], ondelete="SET NULL")
            b.create_unique_constraint("u", ["c"])
            b.create_foreign_key("g", "u", ["d"], ["id"], ondelete="SET NULL")
        """
    ) == [rules.FOREIGN_KEY.reason]


@pytest.mark.parametrize(
    ("imports", "upgrade", "rest"),
    [
        ("from alembic import op as o", 'o.drop_table("t")', ""),
        ("import alembic.op as o", 'o.drop_table("t")', ""),
        ("import alembic", 'alembic.op.drop_table("t")', ""),
        ("from alembic.op import drop_table as away", 'away("t")', ""),
        (OP, 'drop("t")', "drop = op.drop_table"),
        (OP, "step()", 'def step():\n    op.drop_table("t")'),
        (OP, 'step("t")', "def step(name):\n    op.drop_table(name)"),
        (OP, "step(op)", 'def step(o):\n    o.drop_table("t")'),
        (OP, "step()", 'step = lambda: op.drop_table("t")'),
        (OP, 'globals()["upgrade_" + x]()', 'def upgrade_a():\n    op.drop_table("t")'),
        (OP, "Step().run()", 'class Step:\n    def run(self):\n        op.drop_table("t")'),
        (OP, 'op.get_context().impl.drop_table("t")', ""),
        (OP, 'for name in ("t",):\n        op.drop_table(name)', ""),
        (OP, '[op.drop_table(name) for name in {"t": 1}]', ""),
        (OP, 'if x:\n        pass\n    else:\n        op.drop_table("t")', ""),
        (OP, 'try:\n        pass\n    except E:\n        op.drop_table("t")', ""),
        (OP, 'while x():\n        op.drop_table("t")', ""),
        (OP, 'with op.get_context().autocommit_block():\n        op.drop_table("t")', ""),
    ],
)
def test_an_operation_is_found_through_aliases_functions_and_branches(imports, upgrade, rest):
    source = f"{imports}\ndef upgrade():\n    {upgrade}\n{rest}\n"
    assert [(f.reason, f.operation.endswith("(t)")) for f in check_revision(source)] == [
        (rules.DROP_TABLE.reason, True)
    ]


def test_code_that_upgrade_does_not_call_is_ignored():
    assert (
        check_revision('from alembic import op\ndef upgrade():\n    pass\ndef downgrade():\n    op.drop_table("t")')
        == []
    )


@pytest.mark.parametrize("source", ["", "from other import upgrade", "upgrade = make()"])
def test_a_file_without_a_readable_upgrade_is_reported(source):
    assert [finding.reason for finding in check_revision(source)] == [rules.NO_UPGRADE.reason]


def test_a_table_that_may_exist_already_is_not_new():
    conditional = 'if not sa.inspect(op.get_bind()).has_table("t"):\n    op.create_table("t")\nop.drop_column("t", "c")'
    assert reasons(conditional) == [rules.DROP_COLUMN.reason]
    assert reasons('op.create_table("t", if_not_exists=True)\nop.drop_column("t", "c")') == [rules.DROP_COLUMN.reason]
    both_branches = 'if x:\n    op.create_table("t")\nelse:\n    op.create_table("t", y)\nop.drop_column("t", "c")'
    assert reasons(both_branches) == []


def test_a_table_that_is_dropped_and_created_again_is_reported_once():
    assert reasons('op.drop_table("t")\nop.create_table("t")\nop.drop_column("t", "c")') == [rules.DROP_TABLE.reason]


def test_a_revision_may_change_what_an_earlier_one_adds():
    create, drop = revision('op.create_table("t")'), revision('op.drop_column("t", "c")')
    assert check_revisions([("1.py", create), ("2.py", drop)]) == []
    assert [file for file, _ in check_revisions([("2.py", drop), ("1.py", create)])] == ["2.py"]


def test_a_comment_with_a_reason_declares_an_operation_safe():
    assert found('op.drop_table("t")  # expand-only: nothing has read it since 1.2') == []
    assert found('op.execute(\n    """\n    DROP TABLE t\n    """\n)  # expand-only: never used') == []
    assert reasons('op.drop_table("t")  # expand-only:') == [rules.DROP_TABLE.reason]
    assert reasons('op.drop_table("t")\nop.drop_table("u")  # expand-only: why') == [rules.DROP_TABLE.reason]
    assert reasons('op.execute("DROP TABLE t -- # expand-only: not a comment of Python")') == [rules.DROP_TABLE.reason]


def test_each_revision_of_the_example_panel_only_expands_the_schema():
    for file in EXAMPLE.glob("*.py"):
        assert check_revision(file.read_text(encoding="utf-8")) == [], file


def test_sql_is_concatenated_from_constants():
    body = 'T = "t"\nfor c in ("a", "b"):\n    op.execute(f"ALTER TABLE {T} DROP COLUMN {c}")'
    assert [finding.operation for finding in found(body)] == [
        "op.execute(ALTER TABLE t DROP COLUMN a)",
        "op.execute(ALTER TABLE t DROP COLUMN b)",
    ]
    assert found('T = "t"\nop.execute(f"ALTER TABLE {T} " + "ADD c int")') == []
    assert reasons('sql = "SELECT 1"\nif x:\n    sql = "DROP TABLE t"\nop.execute(sql)') == [rules.DROP_TABLE.reason]


def test_string_literals_of_sql_are_not_shown():
    shown = found("op.execute(\"DELETE FROM t WHERE password = 'hunter2'\")")
    assert "hunter2" not in str(shown)
    assert shown[0].operation == "op.execute(DELETE FROM t WHERE password = '')"


def test_additions_are_stored_for_the_next_revision():
    added = Additions()
    check_revision(revision('op.create_table("t")\nop.add_column("u", sa.Column("c", sa.Integer))'), added)
    assert (added.tables, added.columns) == ({"t"}, {("u", "c"): False})
