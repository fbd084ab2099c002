package target_test

import (
	"reflect"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// policy keeps a load from compressing a chunk of long ago that it has left
// uncompressed.
const policy = "select add_compression_policy('m', interval '7 days')"

// TestPartialRange copies a part of a chunk, which never travels as it is,
// and leaves the target's other rows alone.
func TestPartialRange(t *testing.T) {
	keep := "insert into m(ts, dev, i) select '2024-01-04 10:00+00'::timestamptz + i * interval '1 minute', 7, -i " +
		"from generate_series(0, 299) i;"
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, from := range []struct {
			name, sql  string
			compressed bool
			everywhere bool // on all versions
		}{
			{"uncompressed", fill(0, 1000), false, false},
			{"compressed", fill(0, 1000) + compress, true, false},
			{"partial", fill(0, 1000) + compress + fill(200, 20), true, true},
		} {
			for _, to := range []struct{ name, sql, way, status string }{
				{"absent", "", wayRows, ""},
				{"uncompressed", keep + fill(3, 100), wayRows, ""},
				{"compressed", keep + fill(3, 100) + compress, wayRoot, ""},
				{"partial", keep + compress + fill(3, 100), wayRoot, ""},
				{"frozen", keep + fill(3, 100) + compress +
					"select FN.freeze_chunk(c) from show_chunks('m') c;", wayRoot, "5 13"},
			} {
				if !newest(t, p) && !(from.everywhere && to.way == wayRoot) {
					continue
				}
				t.Run(from.name+"-over-"+to.name, func(t *testing.T) {
					s := both(t, p)
					s.exec(t, table+enable)
					s.src.Exec(t, from.sql)
					fn := "_timescaledb_functions"
					if legacy(p) {
						fn = "_timescaledb_internal"
					}
					if to.sql != "" {
						s.dst.Exec(t, strings.ReplaceAll(to.sql, "FN", fn))
					}
					s.stage(t, stage.Options{Until: "2024-01-04 10:00+00"})
					r := one(t, s.copy(t))
					want := to.way
					if from.compressed && !legacy(p) {
						want = wayCompress // nobody else would do that
					}
					if r.Way != want {
						t.Errorf("way %q because %q", r.Way, r.WhyNotRaw)
					}
					q := "select md5(string_agg(m::text, ';' order by m::text)) from m where ts < '2024-01-04 10:00+00'"
					if a, b := s.src.Rows(t, q), s.dst.Rows(t, q); !reflect.DeepEqual(a, b) {
						t.Errorf("rows in the range: %v, %v", a, b)
					}
					if to.sql != "" {
						if n := s.dst.Rows(t,
							"select count(*), sum(i) from m where ts >= '2024-01-04 10:00+00'"); n[0][0] != "300" ||
							n[0][1] != "-44850" {
							t.Errorf("rows outside of the range: %v", n)
						}
					}
					s.ask(t, "m", "after the copy")
					if to.status != "" && !strings.Contains(to.status, state(t, s.dst)) {
						t.Errorf("status %s", state(t, s.dst))
					}
				})
			}
		}
	})
}

// TestCompressedUUID tells a continuous aggregate of batches whose dimension is a
// uuid, by a role that may not create relations.
func TestCompressedUUID(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !tsdb.AtLeast(p.Target.Version, "2.28") {
			t.Skip("no continuous aggregates on uuid")
		}
		s := both(t, p)
		const rows = "insert into m select to_uuidv7_boundary('2024-01-04'::timestamptz + i * interval '1 minute'), " +
			"i % 4, i from generate_series(1, 1000) i;"
		s.exec(t, "create table m(id uuid not null, dev int, i bigint); "+
			"select create_hypertable('m', 'id', chunk_time_interval => interval '7 days'); alter table m "+
			"set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', timescaledb.compress_orderby = 'id');")
		s.src.Exec(t, rows+compress)
		const query = "select time_bucket('1 hour', id) as h, count(*) as n, sum(i) as i from m group by 1"
		s.dst.Exec(t, strings.ReplaceAll(rows, "1, 1000", "500, 2000")+"update m set i = 0;"+compress+
			"create materialized view hourly with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
			query+" with no data")
		// 2.30-dev
		if _, err := s.dst.Conn(t).Exec(t.Context(), "select count(*) from ("+query+") q"); pg.Code(err) == "XX000" {
			t.Skipf("this version cannot group compressed rows by a uuid: %v", err)
		}
		s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
		s.as = s.dst.Role(t, "bf_owner")
		s.dst.Exec(t, "alter materialized view hourly owner to bf_owner; alter table m owner to bf_owner; "+
			"do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; end $$")
		s.stage(t, stage.Options{Until: "2025-01-01", Choice: tsdb.Choice{Filter: `\.m$`}})
		wantWay(t, one(t, s.copy(t)), wayExisting, "")
		s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
		if a, b := s.src.Rows(t, query+" order by 1"),
			s.dst.Rows(t, "select * from hourly order by 1"); !reflect.DeepEqual(a, b) {
			t.Errorf("the aggregate is not up to date:\n%v\n%v", a, b)
		}
	})
}

// TestCompressedTimeSegments loads over a compressed chunk whose segments are
// times, where triggers have to fire.
func TestCompressedTimeSegments(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for until, way := range map[string]string{"2025-01-01": wayCompress, "2024-01-04 10:00+00": wayRoot} {
			s := both(t, p)
			s.exec(t, table+"alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'ts', "+
				"timescaledb.compress_orderby = 'i');")
			s.src.Exec(t, fill(0, 1000))
			s.dst.Exec(t, fill(3, 997)+"update m set v = 7 where i < 600;"+compress+
				`create function seen() returns trigger language plpgsql as 'begin return null; end';
				create trigger seen after insert on m for each row execute function seen();`)
			s.stage(t, stage.Options{Until: until})
			if tsdb.AtLeast(p.Target.Version, "2.14") && !tsdb.AtLeast(p.Target.Version, "2.28") {
				s.stuck(t, "cannot delete rows from its batches")
				one(t, s.copy(t))
			} else {
				wantWay(t, one(t, s.copy(t)), way, "the target's chunk is compressed")
			}
			s.same(t, "after the copy until "+until)
		}
	})
}

// stuck loads where the server cannot delete from batches, and does what the hint
// says.
func (s *sides) stuck(t *testing.T, why string) {
	t.Helper()
	_, errs := s.lane(t, nil)
	if errs[0] == nil || !strings.Contains(errs[0].Error(), why) {
		t.Fatalf("%v", errs[0])
	}
	do, _, _ := strings.Cut(pg.Hint(errs[0]), " on the target")
	s.dst.Exec(t, do)
}

// TestCompressedPartitions loads over compressed chunks of one partition while
// those of the other are frozen.
func TestCompressedPartitions(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		s := both(t, p)
		s.exec(t, strings.Replace(table, "'ts', chunk", "'ts', 'dev', 2, chunk", 1)+enable)
		s.src.Exec(t, fill(0, 1000))
		s.dst.Exec(t, fill(0, 500)+compress+`create function seen() returns trigger language plpgsql as
            'begin return null; end';
			create trigger seen after insert on m for each row execute function seen();`)
		fn := "_timescaledb_functions"
		if legacy(p) {
			fn = "_timescaledb_internal"
		}
		s.dst.Exec(t, "select "+fn+".freeze_chunk(c) from show_chunks('m') c")
		s.stage(t, stage.Options{Until: "2025-01-01"})
		if !tsdb.AtLeast(p.Target.Version, "2.28") {
			// The server looks through the batches of all partitions.
			if _, errs := s.lane(t, nil); errs[0] == nil || !strings.Contains(errs[0].Error(), "frozen") ||
				!strings.Contains(pg.Hint(errs[0]), "unfreeze that chunk") {
				t.Fatalf("%v", errs)
			}
			s.dst.Exec(t, "select "+fn+".unfreeze_chunk(c) from show_chunks('m') c")
		}
		rs := s.copy(t)
		if len(rs) != 2 {
			t.Fatalf("%d results", len(rs))
		}
		for _, r := range rs {
			wantWay(t, r, wayCompress, "row triggers")
		}
		s.same(t, "after the copy")
		if s := state(t, s.dst); s != "1,1" && tsdb.AtLeast(p.Target.Version, "2.28") {
			t.Errorf("status %s", s)
		}
	})
}
