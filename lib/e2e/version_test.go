package e2e

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed testdata/v1/schema.sql
	schemaV1 string // as the last bf of version 1 made it
	//go:embed testdata/v1/check.sql
	checkV1 string // as it checked it
)

// TestUpgrade: tasks of version 1 of __backfill are kept and go on; nothing upgrades it
// but bf-stage, and that only while no command of the older bf can be at work. Records
// of chunks are the same as before, byte for byte.
func TestUpgrade(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPair(t, in)
		p.both(t, `create table m (time timestamptz not null, v int);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
		p.src.Exec(t, "insert into m select '2024-01-01'::timestamptz + i * interval '1 hour', i "+
			"from generate_series(0, 71) i")
		p.stage(t, "--until", "2024-01-03")
		p.copy(t)
		before, listed := p.dst.Rows(t, stateV1), p.chunks(t, "--all")
		p.dst.Exec(t, "create temporary table kept as select * from __backfill.task; drop schema __backfill cascade;"+
			schemaV1)
		p.dst.Exec(t, `insert into __backfill.task overriding system value
            select priority, worked, copy_message, attempts, failed,
            verified, verify_message, chunk_schema, chunk_name, hypertable_schema, hypertable_name,
            view_schema, view_name,
            dimensions, filter, origin, lsn, snapshot, rows_only, est_bytes, est_rows, rows, bytes from kept`)
		p.dst.Exec(t, "select setval(pg_get_serial_sequence('__backfill.task', 'priority'), 100)")

		for _, tool := range []string{"bf-chunks", "bf-verify", "bf-caggs"} {
			r := p.run(t, "", tool, "--target", p.target)
			if r.status != 1 || !strings.Contains(r.stderr, "has version 1") ||
				!strings.Contains(r.stderr, "run bf-stage") {
				t.Errorf("%s on version 1: exit status %d\n%s", tool, r.status, r.stderr)
			}
		}
		lane, err := pgx.Connect(t.Context(), p.dst.ConnString+"&application_name=bf-load")
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--source", p.source, "--target", p.target, "--until", "2024-01-04"}
		if r := p.run(t, "", "bf-stage", args...); r.status != 1 ||
			!strings.Contains(r.stderr, "commands of bf are connected") {
			t.Errorf("upgraded under a lane: exit status %d\n%s", r.status, r.stderr)
		}
		lane.Close(t.Context())
		p.dst.Exec(t, `do $$ begin while exists (select from pg_stat_activity where application_name = 'bf-load'
            and datname = current_database()) loop perform pg_sleep(0.01), pg_stat_clear_snapshot(); end loop; end $$`)
		if staged := p.stage(t, args[4:]...); len(staged) != 1 || staged[0].Task != 101 {
			t.Errorf("staged after the upgrade: %v", staged)
		}
		diff(t, "tasks", flat(before), flat(p.dst.Rows(t, stateV1+" where priority <= 100")))
		if again := p.chunks(t, "--done"); again != listed {
			t.Errorf("records: %s, before %s", again, listed)
		}
		p.copy(t)
		p.same(t, "select * from m")
		// A chunk has one task, and a slice of a hypertable has one.
		columns := `insert into __backfill.task (kind, chunk_schema, chunk_name, hypertable_schema, hypertable_name,
            dimensions, filter)`
		for kind, name := range map[string]string{"chunk": "h", "slice": "c"} {
			one := fmt.Sprintf(`%s values ('%s', 's', 'c', 's', '%s', '[{"from": "0"}]', '{}')`, columns, kind, name)
			p.dst.Exec(t, one)
			if _, err := p.dst.Conn(t).Exec(t.Context(), one); pg.Code(err) != "23505" {
				t.Errorf("%s twice: %v", kind, err)
			}
		}
	})
}

const stateV1 = `select priority, worked, copy_message, attempts, verified, chunk_schema, chunk_name, hypertable_schema,
    hypertable_name, dimensions, filter, origin, rows, bytes from __backfill.task`

func flat(rows [][]string) (out []string) {
	for _, r := range rows {
		out = append(out, strings.Join(r, "|"))
	}
	return sortedStrings(out)
}

// TestOldTools: what an older bf checks makes it refuse this version of the schema, and
// a record of a chunk has the form that it reads.
func TestOldTools(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPair(t, in)
		p.both(t, `create table m (time timestamptz not null, v int);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
		p.src.Exec(t, "insert into m values ('2024-01-01', 1); analyze m")
		p.stage(t, "--until", "2024-01-03")
		if r := p.dst.Rows(t, checkV1); len(r) != 1 || strings.Join(r[0], " ") != "t postgres t t t" {
			t.Errorf("the old check: %v", r)
		}
		var v int
		if p.dst.Query1(t, &v, "select version from __backfill.version"); v != 2 {
			t.Errorf("version %d: an older bf takes it for its own", v)
		}
		golden := `^\{"v":1,"task":1,"hypertable":\{"schema":"public","name":"m"\},` +
			`"chunk":\{"schema":"_timescaledb_internal","name":"_hyper_\d+_\d+_chunk"\},` +
			`"slices":\[\{"column":"time","from":"1704067200000000","until":"1704153600000000"\}\],` +
			`"range":\{"column":"time","from":"1704067200000000","until":"1704153600000000",` +
			`"from_text":"2024-01-01 00:00:00\+00","until_text":"2024-01-02 00:00:00\+00"\},` +
			`"origin":"\d+/\d+","lsn":"[0-9A-F]+/[0-9A-F]+","bytes":\d+,"rows":\d+\}\n$`
		if got := p.chunks(t); !regexp.MustCompile(golden).MatchString(got) {
			t.Errorf("a record of a chunk: %s", got)
		}
	})
}
