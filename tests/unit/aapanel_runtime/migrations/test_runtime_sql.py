# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which SQL statements contract the schema, and which only expand it."""

from __future__ import annotations

import pytest
from aapanel_runtime.migrations import rules
from aapanel_runtime.migrations.rules import Additions
from aapanel_runtime.migrations.sql import check_sql

EXPANDS = [
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

CONTRACTS = [
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


@pytest.mark.parametrize("sql", EXPANDS)
def test_sql_that_expands_the_schema_is_accepted(sql):
    assert list(check_sql(sql, Additions())) == []


@pytest.mark.parametrize(("sql", "contraction"), CONTRACTS)
def test_sql_that_contracts_the_schema_is_reported(sql, contraction):
    assert [reason for _, reason in check_sql(sql, Additions())] == [contraction]
