# Databases: journals made, locked and deleted; WAL with its shared memory; several writers at once.
set -euo pipefail
mkdir world
sqlite3 world/plain.db 'create table t(n integer primary key, s text); begin; insert into t(s) values ("a"), ("b"); commit;'
sqlite3 world/plain.db 'pragma journal_mode=wal; insert into t(s) values ("c");'
for n in 1 2 3; do sqlite3 -cmd '.timeout 30000' world/plain.db "insert into t(s) values ('w');" & done; wait
sqlite3 world/plain.db 'select count(*), group_concat(s) from t; pragma integrity_check; pragma wal_checkpoint(truncate); vacuum;'
sqlite3 world/plain.db '.backup world/copy.db' '.dump' | sha256sum
/usr/bin/python3 - <<'P'
import sqlite3
with sqlite3.connect("world/copy.db") as database:
    database.execute("pragma journal_mode=truncate")
    database.execute("create virtual table words using fts5(text)")
    database.executemany("insert into words values (?)", [("one two",), ("two three",)])
    print(database.execute("select count(*) from words where words match 'two'").fetchone())
P
sqlite3 world/copy.db .dump >world/dump
rm world/*.db
ls world
