-- The least that reading a log with text ids must do: distinct ids in order, rows by user, time and
-- place in the file, ids replaced by their indices. {rows} is the file. Frozen on 2026-11-23.
CREATE TEMP TABLE log AS SELECT "user_id" AS u, "item_id" AS i, "timestamp" AS t FROM {rows};
CREATE TEMP TABLE ids_u AS SELECT u FROM (SELECT DISTINCT u FROM log) ORDER BY u;
CREATE TEMP TABLE ids_i AS SELECT i FROM (SELECT DISTINCT i FROM log) ORDER BY i;
CREATE TEMP TABLE coded AS
  SELECT ids_u.rowid::INTEGER AS u, ids_i.rowid::INTEGER AS i, t, log.rowid::UINTEGER AS n
  FROM log JOIN ids_u USING (u) JOIN ids_i USING (i);
DROP TABLE log;
SELECT u, i, t FROM coded ORDER BY u, t, n;
SELECT u FROM ids_u ORDER BY rowid;
SELECT i FROM ids_i ORDER BY rowid
