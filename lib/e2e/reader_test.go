package e2e

import (
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestReader reads the source as a role that may select from the hypertable and
// nothing else, with the chunks in schemas of the user's: bf-stage names the
// grant that is missing, and with it everything works.
func TestReader(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, `create schema "Chunks"; create schema other;
			create table h (ts timestamptz not null, d int, v int);
			select create_hypertable('h', 'ts', chunk_time_interval => interval '1 day',
			associated_schema_name => 'Chunks');
			create table i (ts timestamptz not null, v int);
			select create_hypertable('i', 'ts', chunk_time_interval => interval '1 day',
			associated_schema_name => 'other');`)
		p.src.Exec(t, "insert into h select '2024-01-01'::timestamptz + n * interval '1 hour', n % 3, n "+
			"from generate_series(0, 99) n; insert into i select ts, v from h")
		if v.Source.Full {
			p.both(t, "alter table h set (timescaledb.compress, timescaledb.compress_segmentby = 'd')")
			p.src.Exec(t, "select compress_chunk(c) from show_chunks('h', older_than => '2024-01-03'::timestamptz) c")
		}
		owner := p.source
		p.source = p.src.Role(t, "reader")
		p.src.Exec(t, "alter database "+p.src.Name+" owner to postgres; grant select on h, i to reader")
		stage := func() result {
			return p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2025-01-01")
		}
		r := stage()
		want := `hint: run on the source: grant usage on schema "Chunks", other to "reader"`
		if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("exit status %d: %s\nwant %s", r.status, r.stderr, want)
		}
		_, grant, _ := strings.Cut(strings.TrimSpace(r.stderr), "hint: run on the source: ")
		if grant == "" {
			t.FailNow()
		}
		p.src.Exec(t, grant)
		if r := stage(); r.status != 0 {
			t.Fatalf("after the grant: %s", r.stderr)
		}
		p.copy(t)
		p.same(t, "select * from h")
		p.same(t, "select * from i")
		p.ok(t, "", "bf-verify", "--source", p.source, "--target", p.target)
		p.source = owner
	})
}
