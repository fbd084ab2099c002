package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestSettings copies between databases whose settings would change values, hide
// rows or put them elsewhere.
func TestSettings(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		// A type without binary form makes the chunk travel as text.
		p.both(t, `create table plain (time timestamptz not null, n int, a text[], r regtype);
			select create_hypertable('plain', 'time', chunk_time_interval => interval '1 day')`)
		p.src.Exec(t, `insert into plain select timestamptz '2024-01-01Z' + i * interval '1 minute', i, '{x,NULL}',
            'int' from generate_series(0, 2000) i`)
		if v.Source.Full {
			p.both(t, `create table packed (time timestamptz not null, n int not null, v text, unique (time, n));
				select create_hypertable('packed', 'time', chunk_time_interval => interval '1 day');
				alter table packed set (timescaledb.compress, timescaledb.compress_segmentby = 'n')`)
			for db, v := range map[*testdb.DB]string{p.src: "source", p.dst: "target"} {
				db.Exec(t, `insert into packed select timestamptz '2024-01-01Z' + i * interval '1 minute', i % 3, '`+v+
					`' from generate_series(0, 2000) i;
					select compress_chunk(c) from show_chunks('packed') c`)
			}
			// On the target its rows go through the hypertable: its chunks are others.
			p.both(t, `create table cut (time timestamptz not null, n int);
				select create_hypertable('cut', 'time', chunk_time_interval => interval '1 day');
				alter table cut set (timescaledb.compress)`)
			p.dst.Exec(t, `select set_chunk_time_interval('cut', interval '5 hours')`)
			p.src.Exec(t, `insert into cut select timestamptz '2024-01-01Z' + i * interval '1 second', i
                from generate_series(0, 20000) i`)
			// Rows that are on the source only, and the other way round.
			p.src.Exec(t, `insert into packed
                select timestamptz '2024-01-01 00:00:30Z' + i * interval '1 minute', i % 3, 'late'
                from generate_series(0, 50) i`)
			p.dst.Exec(t, `insert into packed
                select timestamptz '2024-01-01 00:00:40Z' + i * interval '1 minute', i % 3, 'other'
                from generate_series(0, 50) i`)
		}
		for _, s := range []struct{ name, target, source string }{
			{"array_nulls", "off", "off"}, {"quote_all_identifiers", "on", "off"},
			{"timescaledb.enable_dml_decompression", "off", "off"},
			{"timescaledb.enable_transparent_decompression", "off", "off"},
			{"timescaledb.enable_direct_compress_copy", "on", "on"},
			{"timescaledb.enable_direct_compress_insert", "on", "on"},
		} {
			for db, value := range map[*testdb.DB]string{p.src: s.source, p.dst: s.target} {
				db.Exec(t, fmt.Sprintf(`do $$ begin
						if exists (select from pg_settings where name = '%s') then
							execute 'alter database %s set %[1]s = %[3]s';
						end if; end $$`, s.name, db.Name, value))
			}
		}
		// The second range cuts a chunk that is compressed on the target.
		for _, until := range []string{"2024-01-01 12:00Z", "2024-01-02 03:00Z"} {
			p.stage(t, "--until", until)
			for _, r := range p.copy(t) {
				if r.Status != task.Loaded {
					t.Errorf("%s: %s", r.Chunk, r.Message)
				}
			}
			if s := statuses(p.verify(t, 0, "--all")); strings.Contains(s, "differs") {
				t.Errorf("until %s: %s", until, s)
			}
		}
		p.same(t, "select * from plain where time < '2024-01-02 03:00Z'")
		if v.Source.Full {
			p.same(t, "select * from packed where time < '2024-01-02 03:00Z'")
			p.same(t, "select * from cut")
			// What was not compressed is not now.
			p.same(t, "select hypertable_name, range_start, is_compressed from timescaledb_information.chunks "+
				"where hypertable_name <> 'cut'")
			if got := sorted(t, p.dst, "select distinct is_compressed from timescaledb_information.chunks "+
				"where hypertable_name = 'cut'"); fmt.Sprint(got) != "[f]" {
				t.Errorf("chunks of other extents are compressed: %v", got)
			}
		}
	})
}

// TestAnyBytes: what is no text in UTF-8 is not copied, and people are told why.
func TestAnyBytes(t *testing.T) {
	in := testdb.Installs(t)[0]
	src, dst := testdb.NewSorted(t, in, "source", "encoding 'SQL_ASCII' locale 'C'"), testdb.New(t, in, "target")
	p := &pair{src, dst, src.ConnString, dst.ConnString}
	p.both(t, "create table h (time timestamptz not null, v text); "+
		"select create_hypertable('h', 'time', chunk_time_interval => interval '1 day')")
	p.src.Exec(t, `insert into h values ('2024-01-01Z', 'plain'), ('2024-01-02Z', convert_from('\xff', 'SQL_ASCII')),
        ('2024-01-03Z', convert_from('\xc3a9', 'SQL_ASCII'))`)
	p.stage(t, "--until", "2024-02-01")
	r := p.run(t, p.chunks(t), "bf-dump", "--source", p.source)
	if r.status != 1 || !strings.Contains(r.stderr, "SQLSTATE 22021") ||
		!strings.Contains(r.stderr, "hint: text that is not valid in its encoding") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	r = p.run(t, r.stdout, "bf-load", "--target", p.target)
	if got := sorted(t, p.dst, "select v from h"); r.status != 1 || fmt.Sprint(got) != "[plain é]" {
		t.Errorf("exit status %d, copied %q: %s", r.status, got, r.stderr)
	}
}
