package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestCalendarChunks copies chunks that begin and end with days and months in
// somebody's time zone (timescaledb.enable_calendar_chunking, in no release
// yet), between databases whose zone is not UTC, and to and from hypertables
// with chunks of a fixed length. What the application inserts afterwards finds
// its chunk, no two chunks overlap, and what a row makes is cut in the target's
// zone.
func TestCalendarChunks(t *testing.T) {
	any := false
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		probe := testdb.New(t, v.Target, "target")
		if len(probe.Rows(t, "select from pg_settings where name = 'timescaledb.enable_calendar_chunking'")) == 0 {
			t.Skip("this TimescaleDB has no calendar chunking")
		}
		any = true
		for _, typ := range []string{"timestamptz", "timestamp", "date", "uuid"} {
			for _, c := range []struct{ source, target, zone string }{
				{"1 day", "1 day", "America/New_York"},
				{"1 month", "1 month", "America/New_York"},
				{"1 month", "1 month", "Asia/Kolkata"}, // the source is in New York
				{"fixed", "1 day", "America/New_York"},
				{"1 month", "fixed", "America/New_York"},
				{"1 month", "1 day", "America/New_York"},
			} {
				for _, parts := range [][2]int{{0, 0}, {2, 2}, {2, 3}} {
					t.Run(fmt.Sprintf("%s/%s to %s in %s/partitions=%d", typ, c.source, c.target, c.zone, parts),
						func(t *testing.T) {
							calendar(t, v, typ, side{c.source, "America/New_York", parts[0]},
								side{c.target, c.zone, parts[1]})
						})
				}
			}
		}
	})
	if !any {
		t.Skip("no TimescaleDB that was found has calendar chunking")
	}
}

// side is how one side cuts its chunks: by an interval of the calendar or
// "fixed", the zone of its sessions, and the number of hash partitions.
type side struct {
	interval, zone string
	partitions     int
}

func calendar(t *testing.T, v testdb.Pair, typ string, from, to side) {
	p := newPair(t, v)
	// value turns a timestamptz expression into one of the type.
	value := func(at string) string {
		if typ == "uuid" {
			return "to_uuidv7_boundary(" + at + ")"
		}
		return "(" + at + ")::" + typ
	}
	create := func(db *testdb.DB, s side) {
		on := "on"
		if s.interval == "fixed" {
			s.interval, on = "1 day", "off"
		}
		db.Exec(t, fmt.Sprintf("alter database %s set timezone to '%s'", db.Name, s.zone))
		db.Reconnect()
		db.Exec(t, fmt.Sprintf(`set timezone to '%s'; set timescaledb.enable_calendar_chunking to %s;
			create table h (ts %s not null, dev int not null, v int);
			select create_hypertable('h', by_range('ts', interval '%s'))`, s.zone, on, typ, s.interval))
		if s.partitions > 0 {
			db.Exec(t, fmt.Sprintf("select add_dimension('h', by_hash('dev', %d))", s.partitions))
		}
		if v.Source.Full {
			db.Exec(t, "alter table h set (timescaledb.compress, timescaledb.compress_segmentby = 'dev')")
		}
	}
	create(p.src, from)
	create(p.dst, to)
	rows := func(first string, n int) string {
		return fmt.Sprintf("insert into h select %s, n %% 3, n from generate_series(0, %d) n",
			value("'"+first+"'::timestamptz + n * interval '7 hours'"), n)
	}
	p.src.Exec(t, rows("2024-02-20 00:00-05", 100)) // over the 10th of March, when clocks change
	if v.Source.Full {
		p.src.Exec(t, "select compress_chunk(c) from (select c from show_chunks('h') c order by c::text limit 2) c")
	}
	p.stage(t, "--until", "2024-06-01")
	// What cannot be taken as it is travels as rows the second time.
	copied := p.sh(t, `for i in 1 2; do bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target `+
		`"$TARGET" >/dev/null; done`)
	if copied.status != 0 {
		t.Fatal(copied.stderr)
	}
	p.src.Exec(t, "set timezone to 'UTC'")
	p.dst.Exec(t, "set timezone to 'UTC'")
	p.same(t, "select * from h")
	p.ok(t, "", "bf-verify", "--source", p.source, "--target", p.target)
	if from == to {
		p.same(t, "select range_start, range_end from _timescaledb_catalog.dimension_slice")
	}
	// The application goes on, before, in between and after.
	p.dst.Exec(t, fmt.Sprintf("set timezone to '%s'", to.zone))
	if to.interval != "fixed" && typ == "timestamptz" && !v.Target.Full {
		// The chunks were made by a row, as the application would have made them:
		// the Apache edition refuses create_chunk.
		for _, r := range p.dst.Rows(t, "select distinct range_start::text from timescaledb_information.chunks") {
			if !strings.Contains(r[0], " 00:00:00") {
				t.Errorf("a chunk begins at %s", r[0])
			}
		}
	}
	for _, first := range []string{"2024-02-10 00:30-05", "2024-03-10 00:30-05", "2024-03-25 00:30-05"} {
		p.dst.Exec(t, rows(first, 100))
	}
	var n int
	p.dst.Query1(t, &n, "select count(*) from h")
	if n != 4*101 {
		t.Errorf("%d rows, want %d", n, 4*101)
	}
	if from.partitions > 0 {
		return
	}
	if n := len(p.dst.Rows(t, `select from timescaledb_information.chunks a
        join timescaledb_information.chunks b using (hypertable_name)
			where a.chunk_name < b.chunk_name and a.range_start < b.range_end
			and b.range_start < a.range_end`)); n > 0 {
		t.Errorf("%d pairs of chunks overlap", n)
	}
}
