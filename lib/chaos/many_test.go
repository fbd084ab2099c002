package chaos

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestManyChunks: many chunks do not exhaust the servers' lock tables, because no
// command takes a lock per chunk. A sixth of the default size does for the
// proof with 1000 chunks; at 64 locks per transaction it is thousands.
func TestManyChunks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	testdb.Path(t)
	const chunks = 1000
	for _, in := range testdb.Installs(t)[:1] {
		small := testdb.WithConfig("max_locks_per_transaction = 10", "max_connections = 10", "log_min_messages = panic")
		source, target := testdb.NewServer(t, in, "source", small).DB(t), testdb.NewServer(t, in, "target", small).DB(t)
		for _, d := range []*testdb.DB{source, target} {
			d.Exec(t, `create table device (id int primary key); insert into device values (1);
				create table m (time bigint not null, dev int references device, v int);
				select create_hypertable('m', 'time', chunk_time_interval => 10)`)
		}
		for from := 0; from < chunks; from += 10 { // creating them takes locks, too
			source.Exec(t, "insert into m select 10 * n, 1, n from generate_series($1::int, $1 + 9) n", from)
		}
		// Some are there on the target, of another extent, and compressed: for
		// those the rows go through the root.
		target.Exec(t, "select set_chunk_time_interval('m', 15)")
		target.Exec(t, "insert into m select 150 * n, 1, -1 from generate_series(0, 9) n")
		if in.Full {
			target.Exec(t, "alter table m set (timescaledb.compress, timescaledb.compress_orderby = 'time', "+
				"timescaledb.compress_segmentby = 'dev')") // ≤ 2.11: as dev references another table
			target.Rows(t, "select compress_chunk(c) from show_chunks('m') c")
			// Up to 2.22 a DELETE from a chunk leaves its batches alone, and the
			// hypertable has to be cleared with locks on all of it.
			var left int
			target.Exec(t, "do $$ begin execute 'delete from only ' || (select min(c::text) "+
				"from show_chunks('m') c); end $$")
			if target.Query1(t, &left, "select count(*) from m"); left == 10 {
				target.Rows(t, "select decompress_chunk(c) from show_chunks('m') c")
			}
		}
		env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
		for _, script := range []string{
			"bf-stage --until 10000000",
			"bf-chunks --all; bf-chunks --pending --order largest",
			"for i in 1 2 3; do bf-chunks --claim | bf-dump | bf-load -q & done; wait",
			"bf-verify -p 2",
			"bf-chunks --task 999 | bf-dump | bf-load --force",
			"bf-clean",
		} {
			s := start(t, env, script+" >/dev/null")
			s.wait(t, 2*deadline)
			if s.status() != 0 {
				t.Fatalf("%s: status %d\n%s", script, s.status(), s.errors())
			}
		}
		good, rows := 0, 0
		for from := 0; from < 10*chunks; from += 500 { // a count of all would exhaust it
			r := target.Rows(t, fmt.Sprintf("select count(*) filter (where time = 10 * v), count(*) from m "+
				"where time >= %d::bigint and time < %d::bigint", from, from+500))
			g, _ := strconv.Atoi(r[0][0])
			n, _ := strconv.Atoi(r[0][1])
			good, rows = good+g, rows+n
		}
		if good != chunks || rows != chunks {
			t.Errorf("%s: %d of %d rows, %d in all", in, good, chunks, rows)
		}
	}
}

// TestManyBatches: where the target's chunks are compressed and of another
// extent, TimescaleDB up to 2.22 can only clear them by a statement that locks
// every chunk of the hypertable. Several lanes do that one after the other; what
// one alone would exhaust the lock table with is refused.
func TestManyBatches(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	testdb.Path(t)
	for _, in := range testdb.Installs(t) {
		if !in.Full || !strings.HasPrefix(in.Version, "2.22.") && !strings.HasPrefix(in.Version, "2.11.") {
			continue
		}
		// A chunk has one index: 800 locks, of 1260 or so and of 420 that there
		// are for those who connect.
		for locks, until := range map[int]int{30: 6000, 10: 3000} {
			small := testdb.WithConfig(fmt.Sprintf("max_locks_per_transaction = %d", locks), "max_connections = 20",
				"max_worker_processes = 8", "log_min_messages = panic")
			source, target := testdb.NewServer(t, in, "source", small).DB(t),
				testdb.NewServer(t, in, "target", small).DB(t)
			for d, interval := range map[*testdb.DB]int{source: 100, target: 15} {
				d.Exec(t, fmt.Sprintf("create table m (time bigint not null, v int); "+
					"select create_hypertable('m', 'time', chunk_time_interval => %d)", interval))
			}
			source.Exec(t, "insert into m select n, 1 from generate_series(0, $1::int - 1) n", until)
			target.Exec(t, "alter table m set (timescaledb.compress, timescaledb.compress_orderby = 'time')")
			for from := 0; from < until; from += 150 {
				target.Exec(t, "insert into m select n, -1 from generate_series($1::int, $1 + 149) n", from)
				target.Rows(t, fmt.Sprintf("select compress_chunk(c) from show_chunks('m', newer_than => %d::bigint) c",
					from))
			}
			env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
			run := func(script string, status int) string {
				t.Helper()
				s := start(t, env, script+" >/dev/null")
				s.wait(t, 2*deadline)
				if s.status() != status {
					t.Fatalf("%s: %s: status %d\n%s", in, script, s.status(), s.errors())
				}
				return s.errors()
			}
			run(fmt.Sprintf("bf-stage --until %d", until), 0)
			if locks == 10 {
				said := run("bf-chunks --task 1 | bf-dump | bf-load", 1)
				hint := regexp.MustCompile(`would lock every chunk and index: ` +
					`400 locks, and the server has room for \d+\nhint: ` +
					`set max_locks_per_transaction = \d+ on the target and restart it, ` +
					`or (select "public"\."decompress_chunk"\('.*'\)); then`)
				for tries := 0; tries < 8 && hint.MatchString(said); tries++ {
					target.Rows(t, hint.FindStringSubmatch(said)[1])
					s := start(t, env, "bf-chunks --task 1 | bf-dump | bf-load -q >/dev/null")
					s.wait(t, deadline)
					said = s.errors()
				}
				if said != "" {
					t.Errorf("%s: after the chunks were decompressed: %s", in, said)
				}
				if n := target.Rows(t, fmt.Sprintf("select count(*), sum(v) from m where time >= %d::bigint",
					until-100)); n[0][0] != "100" || n[0][1] != "100" {
					t.Errorf("%s: rows and sum %v, want 100 twice", in, n)
				}
				continue
			}
			run("for i in 1 2 3 4 5 6; do bf-chunks --claim | bf-dump | bf-load -q & done; wait; "+
				"[ -z \"$(bf-chunks)\" ]", 0)
			if n := target.Rows(t, "select count(*), sum(v) from m"); n[0][0] != "6000" || n[0][1] != "6000" {
				t.Errorf("%s: rows and sum %v, want 6000 twice", in, n)
			}
		}
	}
}
