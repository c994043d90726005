# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which operations of a migration are refused as more than an expansion, and which are not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from aapanel_runtime import expand_rules as rules
from aapanel_runtime.expand import Finding, judge, judge_all
from aapanel_runtime.expand_rules import Additions

EXAMPLE = Path(__file__).parents[3] / "examples/panel/migrations/versions"
HEAD = "import sqlalchemy as sa\nfrom alembic import op\n"
FIRST_LINE = 4
OP = "from alembic import op"


def revision(body: str) -> str:
    return f"{HEAD}def upgrade():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def found(body: str) -> list[Finding]:
    return judge(revision(body))


def reasons(body: str) -> list[str]:
    return [finding.reason for finding in found(body)]


EXPANDS = {
    "a table": 'op.create_table("t", sa.Column("id", sa.Integer, nullable=False), sa.UniqueConstraint("id"))',
    "a nullable column": 'op.add_column("t", sa.Column("c", sa.Integer))',
    "a column that says nullable": 'op.add_column("t", sa.Column("c", sa.Integer, nullable=True))',
    "a column with a default": 'op.add_column("t", sa.Column("c", sa.Integer, nullable=False, server_default="0"))',
    "a computed column": 'op.add_column("t", sa.Column("c", sa.Integer, sa.Computed("a + 1"), nullable=False))',
    "a new column that clears itself": """
        op.add_column("t", sa.Column("c", sa.Integer, sa.ForeignKey("u.id", ondelete="SET NULL")))""",
    "a unique new column": 'op.add_column("t", sa.Column("c", sa.Integer, unique=True))',
    "an index": 'op.create_index(op.f("ix"), "t", ["c"], unique=False)',
    "NULL again": 'op.alter_column("t", "c", existing_type=sa.Integer(), nullable=True)',
    "another default": 'op.alter_column("t", "c", server_default=sa.text("1"))',
    "a comment": 'op.alter_column("t", "c", comment="x", existing_nullable=False)',
    "rows": 'op.bulk_insert(sa.table("t", sa.column("c")), [{"c": 1}])',
    "a built statement": 't = sa.table("t", sa.column("c"))\nop.execute(t.update().where(t.c.c == 1).values(c=2))',
    "another built statement": 'op.get_bind().execute(sa.select(sa.table("t").c.x))',
    "a table of metadata": "sa.MetaData().create_all(op.get_bind())",
    "an inspection": 'if not sa.inspect(op.get_bind()).has_table("t"):\n    op.create_table("t")',
    "what an own table suffers": """
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
    "what an own column and index suffer": """
        op.add_column("t", sa.Column("a", sa.Integer))
        op.alter_column("t", "a", type_=sa.BigInteger())
        op.create_unique_constraint("u", "t", ["a"])
        op.create_foreign_key("f", "t", "other", ["a"], ["id"], ondelete="CASCADE")
        op.create_index("ix", "t", ["a"], unique=True)
        op.drop_index("ix", "t")
        op.drop_column("t", "a")""",
    "a default that makes NOT NULL harmless": """
        op.add_column("t", sa.Column("a", sa.Integer, server_default="1"))
        op.alter_column("t", "a", nullable=False)""",
}


@pytest.mark.parametrize("body", EXPANDS.values(), ids=EXPANDS.keys())
def test_what_only_adds_is_not_refused(body):
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
    ("helper(op)", "helper()", rules.ELSEWHERE),
    ('map(op.drop_table, ["t"])', "map()", rules.ELSEWHERE),
    ("tidy_up(op.get_bind())", "tidy_up()", rules.ELSEWHERE),
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
def test_what_does_more_is_refused_with_the_reason(body, operation, contraction):
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
def test_a_batch_is_judged_like_its_table(line, operation, contraction):
    batch = f'with op.batch_alter_table("t", schema=None) as b:\n    {line}'
    assert found(batch) == [Finding(FIRST_LINE + 1, operation, *contraction)]
    assert found(f'op.create_table("t")\n{batch}') == []


def test_a_batch_knows_its_own_columns():
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
def test_an_operation_is_found_however_it_is_reached(imports, upgrade, rest):
    source = f"{imports}\ndef upgrade():\n    {upgrade}\n{rest}\n"
    assert [(f.reason, f.operation.endswith("(t)")) for f in judge(source)] == [(rules.DROP_TABLE.reason, True)]


def test_what_upgrade_does_not_reach_is_not_judged():
    assert judge('from alembic import op\ndef upgrade():\n    pass\ndef downgrade():\n    op.drop_table("t")') == []


@pytest.mark.parametrize("source", ["", "from elsewhere import upgrade", "upgrade = make()"])
def test_a_file_without_an_upgrade_to_read_is_refused(source):
    assert [finding.reason for finding in judge(source)] == [rules.NO_UPGRADE.reason]


def test_a_table_that_may_have_been_there_is_not_new():
    maybe = 'if not sa.inspect(op.get_bind()).has_table("t"):\n    op.create_table("t")\nop.drop_column("t", "c")'
    assert reasons(maybe) == [rules.DROP_COLUMN.reason]
    assert reasons('op.create_table("t", if_not_exists=True)\nop.drop_column("t", "c")') == [rules.DROP_COLUMN.reason]
    either = 'if x:\n    op.create_table("t")\nelse:\n    op.create_table("t", y)\nop.drop_column("t", "c")'
    assert reasons(either) == []


def test_a_dropped_and_remade_table_is_refused_once():
    assert reasons('op.drop_table("t")\nop.create_table("t")\nop.drop_column("t", "c")') == [rules.DROP_TABLE.reason]


def test_revisions_are_judged_together_in_their_order():
    made, dropped = revision('op.create_table("t")'), revision('op.drop_column("t", "c")')
    assert judge_all([("1.py", made), ("2.py", dropped)]) == []
    assert [file for file, _ in judge_all([("2.py", dropped), ("1.py", made)])] == ["2.py"]


def test_a_comment_with_a_reason_declares_its_operation_safe():
    assert found('op.drop_table("t")  # expand-only: nothing has read it since 1.2') == []
    assert found('op.execute(\n    """\n    DROP TABLE t\n    """\n)  # expand-only: never used') == []
    assert reasons('op.drop_table("t")  # expand-only:') == [rules.DROP_TABLE.reason]
    assert reasons('op.drop_table("t")\nop.drop_table("u")  # expand-only: why') == [rules.DROP_TABLE.reason]
    assert reasons('op.execute("DROP TABLE t -- # expand-only: not a comment of Python")') == [rules.DROP_TABLE.reason]


def test_the_example_only_adds_even_to_tables_that_are_there():
    for file in EXAMPLE.glob("*.py"):
        assert judge(file.read_text(encoding="utf-8")) == [], file


SQL_EXPANDS = [
    "CREATE TABLE t (a int NOT NULL UNIQUE, b int REFERENCES u ON DELETE CASCADE)",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON t (a)",
    "ALTER TABLE t ADD COLUMN c int",
    'ALTER TABLE "t" ADD COLUMN IF NOT EXISTS "drop" varchar(10) NOT NULL DEFAULT \'\', ADD d numeric(1, 2) NULL',
    "alter table t add c bigint unsigned not null auto_increment",
    "ALTER TABLE t ADD COLUMN c int REFERENCES u (id) ON DELETE SET NULL",
    "ALTER TABLE t ALTER COLUMN c DROP NOT NULL, ALTER c SET DEFAULT 1",
    "ALTER TYPE mood ADD VALUE 'drop table x'",
    "ALTER TABLE t ADD INDEX ix (a)",
    "INSERT INTO t (a) VALUES ('DROP TABLE t; DELETE FROM t')",
    "INSERT INTO t SELECT 1 ON CONFLICT DO NOTHING",
    "UPDATE t SET a = b WHERE a IS NULL -- DROP TABLE t",
    "/* DROP TABLE t */ SELECT 1; COMMENT ON TABLE t IS 'it''s'",
    "CREATE TRIGGER g BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE TABLE t (a int); ALTER TABLE t DROP COLUMN a; DELETE FROM t; DROP TABLE t",
    "CREATE INDEX ix ON t (a); DROP INDEX ix",
    "ALTER TABLE t ADD c int; ALTER TABLE t RENAME COLUMN c TO d",
]

SQL_CONTRACTS = [
    ("DROP TABLE IF EXISTS t CASCADE", rules.DROP_TABLE),
    ("SELECT 1; drop\n table t", rules.DROP_TABLE),
    ("DROP TABLE t; CREATE TABLE t (a int)", rules.DROP_TABLE),
    ("CREATE OR REPLACE TABLE t (a int)", rules.DROP_TABLE),
    ("DROP INDEX CONCURRENTLY ix", rules.DROP_INDEX),
    ("DROP VIEW v", rules.DROP_OTHER),
    ("DROP TYPE mood", rules.DROP_OTHER),
    ("DO $$ BEGIN DROP TYPE mood; END $$", rules.DROP_OTHER),
    ("/*!40000 DROP TABLE t */", rules.DROP_TABLE),
    ("ALTER TABLE t DROP COLUMN c", rules.DROP_COLUMN),
    ("ALTER TABLE IF EXISTS ONLY s.t ADD x int, DROP c", rules.DROP_COLUMN),
    ("ALTER TABLE t DROP CONSTRAINT k", rules.DROP_CONSTRAINT),
    ("ALTER TABLE t RENAME TO u", rules.RENAME_TABLE),
    ("ALTER TABLE t RENAME COLUMN a TO b", rules.RENAME_COLUMN),
    ("RENAME TABLE t TO u", rules.RENAME_TABLE),
    ("ALTER TABLE t ALTER COLUMN c TYPE bigint", rules.CHANGE_TYPE),
    ("ALTER TABLE t ALTER c SET DATA TYPE bigint USING c::bigint", rules.CHANGE_TYPE),
    ('ALTER TABLE "t" ALTER COLUMN "c" SET NOT NULL', rules.SET_NOT_NULL),
    ("ALTER TABLE t ALTER COLUMN c DROP DEFAULT", rules.DROP_DEFAULT),
    ("ALTER TABLE t MODIFY c bigint", rules.CHANGE_COLUMN),
    ("ALTER TABLE `t` CHANGE `c` `d` bigint", rules.CHANGE_COLUMN),
    ("ALTER TABLE t ADD COLUMN c int NOT NULL", rules.NOT_NULL_COLUMN),
    ("ALTER TABLE t ADD CONSTRAINT u UNIQUE (a)", rules.UNIQUE),
    ("ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0)", rules.CHECK),
    ("ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (id)", rules.FOREIGN_KEY),
    ("ALTER TABLE t ADD COLUMN c int REFERENCES u (id)", rules.FOREIGN_KEY),
    ("ALTER TABLE t ADD PRIMARY KEY (a)", rules.PRIMARY_KEY),
    ("ALTER TABLE t DISABLE TRIGGER ALL", rules.UNKNOWN_STATEMENT),
    ("ALTER DOMAIN d ADD CHECK (VALUE > 0)", rules.UNKNOWN_STATEMENT),
    ("ALTER TYPE mood RENAME VALUE 'a' TO 'b'", rules.RENAME_OTHER),
    ("CREATE UNIQUE INDEX ix ON t (a)", rules.UNIQUE),
    ("TRUNCATE TABLE t", rules.DELETE_ROWS),
    ("DELETE FROM t WHERE a = 1", rules.DELETE_ROWS),
    ("DELETE a FROM t AS a", rules.DELETE_ROWS),
    ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", rules.DELETE_ROWS),
    ("REVOKE SELECT ON t FROM u", rules.REVOKE),
    ("CALL clean()", rules.UNKNOWN_SQL),
    ("DO $x$ BEGIN EXECUTE 'DROP TABLE t'; END $x$", rules.UNKNOWN_SQL),
    (r"UPDATE t SET a = '\'; DROP TABLE t; SELECT ''", rules.UNKNOWN_STATEMENT),
    ("UPDATE t SET a = 'no end", rules.UNKNOWN_STATEMENT),
]


@pytest.mark.parametrize("sql", SQL_EXPANDS)
def test_sql_that_only_adds_is_not_refused(sql):
    assert found(f"op.execute({sql!r})") == []


@pytest.mark.parametrize(("sql", "contraction"), SQL_CONTRACTS)
def test_sql_that_does_more_is_refused(sql, contraction):
    assert reasons(f"op.execute({sql!r})") == [contraction.reason]


def test_sql_is_put_together_where_it_is_known():
    body = 'T = "t"\nfor c in ("a", "b"):\n    op.execute(f"ALTER TABLE {T} DROP COLUMN {c}")'
    assert [finding.operation for finding in found(body)] == [
        "op.execute(ALTER TABLE t DROP COLUMN a)",
        "op.execute(ALTER TABLE t DROP COLUMN b)",
    ]
    assert found('T = "t"\nop.execute(f"ALTER TABLE {T} " + "ADD c int")') == []
    assert reasons('sql = "SELECT 1"\nif x:\n    sql = "DROP TABLE t"\nop.execute(sql)') == [rules.DROP_TABLE.reason]


def test_no_text_of_the_sql_is_repeated():
    shown = found("op.execute(\"DELETE FROM t WHERE password = 'hunter2'\")")
    assert "hunter2" not in str(shown)
    assert shown[0].operation == "op.execute(DELETE FROM t WHERE password = '')"


def test_what_is_added_is_noted_for_the_next():
    added = Additions()
    judge(revision('op.create_table("t")\nop.add_column("u", sa.Column("c", sa.Integer))'), added)
    assert (added.tables, added.columns) == ({"t"}, {("u", "c"): False})
