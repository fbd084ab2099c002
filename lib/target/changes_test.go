package target_test

import (
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// TestLaneSeesChanges: what a lane has asked once it asks again when the hypertable was
// changed between two of its chunks; and compressed relations of the source that are not
// alike are not taken for each other.
func TestLaneSeesChanges(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		s := both(t, p)
		s.exec(t, table)
		const week = 7 * 24 * 60
		s.src.Exec(t, enable+fill(0, 200)+"update m set dev = 9 where dev = 3;"+fill(week, 200)+fill(2*week, 200)+
			fill(3*week, 200)+fill(4*week, 200))
		perChunk := len(s.dst.Rows(t, "select from pg_attribute "+
			"where attrelid = to_regclass('_timescaledb_catalog.compression_settings') and attname = 'relid'")) > 0
		if perChunk { // one chunk has another segment and order than the others
			s.src.Exec(t, `alter table m set (timescaledb.compress_segmentby = 'dev, t',
                    timescaledb.compress_orderby = 'ts');
                select compress_chunk(c) from show_chunks('m', newer_than => '2024-01-24'::timestamptz) c;`+enable)
		}
		s.src.Exec(t, strings.Replace(compress, "c)", "c, true)", 1))
		s.dst.Exec(t, enable+"create table device (dev int primary key); "+
			"insert into device select generate_series(0, 3)")
		s.stage(t, stage.Options{Until: "2025-01-01", Choice: tsdb.Choice{Filter: `\.m$`}})
		referring := false
		changes := map[int]func(){
			1: func() {
				if perChunk {
					s.dst.Exec(t, "alter table m set (timescaledb.compress_orderby = 'ts asc')")
				}
			},
			2: func() { s.dst.Exec(t, "alter table m add column extra int") },
			3: func() { s.dst.Exec(t, "alter table m drop column extra") },
			4: func() { // some versions refuse it
				s.dst.Exec(t, `do $$ begin alter table m add foreign key (dev) references device;
                    exception when feature_not_supported then null; end $$`)
				referring = len(s.dst.Rows(t, "select from pg_constraint "+
					"where conrelid = 'm'::regclass and contype = 'f'")) > 0
			},
		}
		n := 0
		rs, errs := s.lane(t, func(*stream.Header) {
			if f := changes[n]; f != nil {
				f()
			}
			n++
		})
		if n != 5 {
			t.Fatalf("%d tasks", n)
		}
		for i, want := range []string{"", "", `column "extra" exists only on the target`, "",
			"violates foreign key constraint"} {
			if i == 4 && !referring {
				want = ""
			}
			switch {
			case want == "" && errs[i] != nil,
				want != "" && (errs[i] == nil || !strings.Contains(errs[i].Error(), want)):
				t.Errorf("task %d: %v, want %q", i+1, errs[i], want)
			case want == "" && rs[i].Status != task.Loaded:
				t.Errorf("task %d: %s", i+1, rs[i].Status)
			case want == "":
				wantWay(t, rs[i], wayRaw, "")
			}
		}
		if referring {
			s.dst.Exec(t, "insert into device values (9)")
		}
		s.copy(t)
		s.same(t, "after the copy")
	})
}
